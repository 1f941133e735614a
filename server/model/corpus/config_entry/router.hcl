
Kind = "service-router"
Name = "web"
Routes = [
  {
    Match {
      HTTP {
        PathPrefix = "/admin/"
        Methods    = ["GET", "post"]
        Header = [
          { Name = "X-Debug", Exact = "1" },
          { Name = "x-b", Present = true, Invert = true },
        ]
        QueryParam = [{ Name = "q", Regex = "a+" }]
      }
    }
    Destination {
      Service               = "admin"
      RequestTimeout        = "10s"
      NumRetries            = 5
      RetryOnConnectFailure = true
      RetryOn               = ["5xx"]
      RetryOnStatusCodes    = [429]
    }
  },
  # which goes through the splitter
  { Match { HTTP { PathExact = "/x" } } },
  {
    Match { HTTP { PathRegex = "/y.*" } }
    Destination { ServiceSubset = "v2", Service = "web" }
  },
]
