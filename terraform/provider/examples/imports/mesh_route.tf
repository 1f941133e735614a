import {
  to = mesh_route.shop
  id = "shop"
}
