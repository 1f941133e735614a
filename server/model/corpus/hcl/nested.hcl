route "a" {
  rule "b" {
    match {
      match {
        match {}
      }
    }
  }
}
