service "a" {
  meta = { a = "$${x} %%{y} \u00e9 \\ \"" }
}
intention "a" "b" {
  action = "deny"
  description = <<-EOT
    $${x}
      indented
  EOT
}
