# The least that a token of Nomad's needs for mesh_server and mesh_agent:
#
#   nomad acl policy apply mesh-terraform nomad-policy.hcl
#   nomad acl token create -name=mesh-terraform -policy=mesh-terraform
#
# Who may run jobs with raw_exec is root of the machines: guard it as such.
namespace "default" {
  # alloc-lifecycle: an agent begins anew where its node came after it; read-logs: the log of what did
  # not start is shown
  capabilities = ["list-jobs", "read-job", "submit-job", "read-logs", "alloc-lifecycle"]

  # By the names of mesh_server and mesh_agent
  variables {
    path "nomad/jobs/mesh-*" {
      capabilities = ["read", "write", "destroy"]
    }
  }
}

node {
  policy = "read"
}

# Where mesh_server has a `volume`
host_volume "mesh-server" {
  capabilities = ["mount-readwrite"]
}
