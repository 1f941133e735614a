
Kind = "service-intentions"
Name = "web"
Sources = [
  {
    Name   = "front"
    Action = "allow"
    Type = "consul"
    Description = "because"
    Precedence = 9
  },
  {
    Name = "*"
    Action = ""
    Permissions = [
      {
        Action = "deny"
        HTTP {
          PathPrefix = "/admin"
          Header = [{ Name = "x-a", Suffix = "z" }]
        }
      },
      { Action = "allow" }
    ]
  },
]
