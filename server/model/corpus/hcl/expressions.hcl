service "a" {
  meta = { a = "${var.x}", "b" = <<E
x ${y}
E
  , c = -1, d = !true, e = [for x in y : x], f = a.b[0], g = f(1)..., h = (("x")) }
  connect_timeout = x ? 1 : 2
}
