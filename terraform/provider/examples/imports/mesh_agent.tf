import {
  to = mesh_agent.agents
  id = "mesh-agent"
}
