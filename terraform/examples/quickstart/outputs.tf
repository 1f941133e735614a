output "servers" {
  description = "The servers: job, machine, addresses."
  value       = mesh_server.servers.servers
}

output "trust_domain" {
  description = "Of every identity in the mesh."
  value       = mesh_server.servers.trust_domain
}

output "nodes" {
  description = "Where an agent runs."
  value       = mesh_agent.agents.nodes
}
