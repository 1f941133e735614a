mesh {}
mesh {}
service "a" {}
service "default/a" {}
