data "mesh_intention_check" "pay" {
  source      = "frontend"
  destination = "payment"
}

check "frontend_may_not_pay" {
  assert {
    condition     = !data.mesh_intention_check.pay.allowed
    error_message = data.mesh_intention_check.pay.reason
  }
}
