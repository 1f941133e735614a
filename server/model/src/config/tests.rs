#![allow(clippy::unwrap_used)]
use super::*;

/// The file of the documentation, with the CA that is built in.
const SERVER: &str = r#"
datacenter       = "dc1"
data_dir         = "/var/lib/meshctl"
bootstrap_expect = 3
retry_join       = ["10.0.0.1", "10.0.0.2:9000", "server-3"]
sealing_key_file = "/etc/meshctl/sealing.key"

tls {
  ca_file   = "/etc/meshctl/cluster-ca.pem"
  cert_file = "/etc/meshctl/server.pem"
  key_file  = "/etc/meshctl/server.key"
}

ca {
  provider = "built_in"
  leaf_ttl = "12h"
}
"#;

#[test]
fn a_server() {
    let config = ServerConfig::parse(&[("server.hcl", SERVER)]).unwrap();
    assert_eq!(config.http_address().to_string(), "0.0.0.0:8700");
    assert_eq!(config.grpc_address().to_string(), "0.0.0.0:8701");
    insta::assert_debug_snapshot!(config);
}

#[test]
fn an_agent() {
    let text = r#"
node_name = "host-1.example.com"
servers = ["10.0.0.1:8701", "[fd00::1]:8701", "fd00::2"]
http_addr = "0.0.0.0"
meta { rack = "r1" }
sidecar_max_port = 21010
log_format = "json"
limits { proxies = 5 }
dns {
  bind = "10.0.0.5"
  port = 53
  recursors = ["1.1.1.1", "[fd00::1]:5353", "fd00::2"]
}
attestation = "workload"
nomad {
  address  = "https://nomad.internal:4646"
  ca_file  = "/etc/nomad/ca.pem"
  audience = ["mesh"]
}
"#;
    insta::assert_debug_snapshot!(AgentConfig::parse(&[("agent.hcl", text)]).unwrap());
}

#[test]
fn nothing_is_the_defaults() {
    assert_eq!(ServerConfig::parse(&[]).unwrap(), ServerConfig::default());
    let empty = AgentConfig::parse(&[("a", "")]).unwrap();
    assert_eq!(empty, AgentConfig::default());
    let http = ServerConfig::default().http_address();
    assert_eq!(http.to_string(), "127.0.0.1:8700");
}

#[test]
fn a_later_file_wins_key_by_key() {
    let later = "datacenter = \"dc2\"\nretry_join = [\"x\"]\nbootstrap_expect = 1\ntls { key_file = \"/k\" }\nca { root_ttl = \"99999h\" }\n";
    let config = ServerConfig::parse(&[("1", SERVER), ("2", later)]).unwrap();
    assert_eq!(config.datacenter, "dc2");
    assert_eq!(config.retry_join, ["x:8701"]);
    let tls = config.tls.unwrap();
    assert_eq!(tls.key_file, PathBuf::from("/k"));
    assert_eq!(tls.cert_file, PathBuf::from("/etc/meshctl/server.pem"));
    assert_eq!(config.ca.leaf_ttl.to_string(), "12h");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/meshctl"));
}

#[test]
fn a_ca_in_vault() {
    let text = |auth: &str| {
        format!(
            "ca {{\n  provider = \"vault\"\n  vault {{\n    address = \"https://vault.internal:8200\"\n    \
             namespace = \"team/mesh\"\n    ca_file = \"/ca.pem\"\n    cert_file = \"/c.pem\"\n    \
             key_file = \"/k.pem\"\n    root_pki_path = \"pki/root\"\n    leaf_signing = \"vault\"\n    \
             {auth}\n  }}\n}}\n"
        )
    };
    let auths = [
        "",
        "auth \"token\" { token_file = \"/t\" }",
        "auth \"approle\" {\n role_id = \"r\"\n secret_id_file = \"/s\"\n mount = \"a/b\"\n }",
        "auth \"jwt\" {\n role = \"mesh\"\n jwt_file = \"/j\"\n }",
    ];
    let read = |text: &str| ServerConfig::parse(&[("s", text)]).unwrap().ca;
    let found: Vec<VaultAuth> = auths
        .iter()
        .map(|auth| read(&text(auth)).vault.unwrap().auth)
        .collect();
    insta::assert_debug_snapshot!((read(&text("")), found));
}

#[test]
fn a_ca_in_aws() {
    let arn = "arn:aws-cn:acm-pca:cn-north-1:111122223333:certificate-authority/0f-1";
    let text = format!(
        "ca {{\n  provider = \"aws_pca\"\n  aws_pca {{\n    existing_arn = \"{arn}\"\n    \
         endpoint = \"https://vpce-1.acm-pca.cn-north-1.vpce.amazonaws.com\"\n  }}\n}}\n"
    );
    let ca = ServerConfig::parse(&[("s", &text)]).unwrap().ca;
    assert_eq!(ca.provider, CaProvider::AwsPca);
    let aws = ca.aws_pca.unwrap();
    assert_eq!(aws.existing_arn, arn);
    assert!(aws.endpoint.unwrap().starts_with("https://vpce-1"));
    for wrong in [
        "",
        "arn:aws:acm-pca:eu-west-1:1:certificate-authority/",
        "arn:aws:acm-pca::1:certificate-authority/a",
        "arn:aws:acm:eu-west-1:1:certificate/a",
        "arn:aws:acm-pca:eu-west-1:1:certificate-authority/a/certificate/b",
        "arn:aws:acm-pca:eu-west-1/:1:certificate-authority/a",
    ] {
        assert!(!is_pca_arn(wrong), "{wrong}");
    }
}

#[test]
fn what_is_said_of_mistakes() {
    let servers = [
        "datacentre = \"x\"\nbootstrap = \"yes\"\nbootstrap_expect = 0\nlog_level = \"verbose\"\nfoo {}",
        "bootstrap = true\nbootstrap_expect = 3\nretry_join = [\"a b\", \":1\", \"x:0\"]",
        "bootstrap = true\nbootstrap_expect = 3",
        "http_addr = \"10.0.0.1\"\ngrpc_addr = \"0.0.0.0:1\"",
        "bind_addr = \"10.0.0.1:1\"\nhttp_addr = \"localhost\"\ntrust_domain = \"Mesh_X.\"\nnode_ttl = \"3d\"",
        "node_ttl = \"1s\"\nca { leaf_ttl = \"1ms\" }",
        "ca { leaf_ttl = \"10000h\" }",
        "ca {\n  provider = \"aws_pca\"\n  aws_pca {}\n}",
        "ca {\n  provider = \"aws_pca\"\n  aws_pca {\n    existing_arn = \"arn:aws:s3:::b\"\n    endpoint = \"x\"\n    access_key = \"AKIA\"\n  }\n}",
        "ca { provider = \"vault\" }",
        "ca {\n  provider = \"vault\"\n  vault {\n    address = \"vault:8200\"\n    root_pki_path = \"/pki/\"\n    leaf_signing = \"both\"\n    token = \"s.1234\"\n  }\n}",
        "ca {\n  vault {\n    address = \"https://v\"\n    auth \"approle\" { role_id = \"a b\" }\n    auth \"jwt\" {}\n  }\n}",
        "ca {\n  vault {\n    address = \"https://v\"\n    cert_file = \"/c\"\n    auth \"userpass\" {}\n  }\n}",
        "ca {\n  vault {\n    root_pki_path = \"pki\"\n  }\n}",
        "ca { provider = \"valt\" }",
        "tls { ca_file = \"/x\" }",
        "data_dir = \"\"\nlimits { http_body = 1 }",
    ];
    let agents = [
        "server = [\"x\"]\nretry_join = \"x\"\nsidecar_min_port = 0",
        "servers = [\"a\"]\nretry_join = [\"b\"]",
        "sidecar_min_port = 30000",
        "dns {\n  bind = \"0.0.0.0\"\n  port = 0\n  recursors = [\"x\", \"1.1.1.1:0\", \"0.0.0.0\"]\n}",
        "dns { bind = \"10.0.0.1:53\" }",
        "node_id = \"a/b\"\nnode_name = \"a b\"\nadvertise_addr = \"x\"",
    ];
    let mut said = Vec::new();
    for text in servers {
        let found = ServerConfig::parse(&[("server.hcl", text)]).expect_err(text);
        said.push(format!("{text}\n----\n{found}\n"));
    }
    for text in agents {
        let found = AgentConfig::parse(&[("agent.hcl", text)]).expect_err(text);
        said.push(format!("{text}\n----\n{found}\n"));
    }
    insta::assert_snapshot!(said.join("\n========\n"));
}

#[test]
fn servers_that_nomad_knows() {
    let text = r#"
bootstrap_expect = 3
nomad {
  address    = "unix:///secrets/api.sock"
  token_file = "/secrets/nomad_token"
  service    = "mesh-server"
  namespace  = "infra"
}
"#;
    let config = ServerConfig::parse(&[("server.hcl", text)]).unwrap().nomad;
    assert_eq!(config.address, "unix:///secrets/api.sock");
    assert_eq!(config.service.as_deref(), Some("mesh-server"));
    assert_eq!(config.namespace.as_deref(), Some("infra"));
    assert_eq!(
        config.token_file,
        Some(PathBuf::from("/secrets/nomad_token"))
    );
    // Whose identities are believed is an agent's affair.
    for key in ["jwks_url = \"http://nomad\"", "audience = [\"mesh\"]"] {
        let text = format!("nomad {{ {key} }}");
        assert!(ServerConfig::parse(&[("s", &text)]).is_err(), "{key}");
        AgentConfig::parse(&[("a", &text)]).unwrap();
    }
}

#[test]
fn what_nomad_is_not() {
    for text in [
        "nomad { address = \"127.0.0.1:4646\" }",
        "nomad { address = \"http://\" }",
        "nomad { jwks_url = \"http://user:secret@nomad\" }",
        "nomad { audience = [] }",
        "nomad { address = \"unix://api.sock\" }",
        "nomad { jwks_url = \"unix:///api.sock\" }",
        "nomad { service = \"a/b\" }",
        "nomad { namespace = \"a b\" }",
        "nomad { token_file = \"\" }",
        "attestation = \"none\"",
    ] {
        assert!(AgentConfig::parse(&[("a", text)]).is_err(), "{text}");
    }
}

#[test]
fn a_ca_that_is_taken_over() {
    let read = |inner: &str| {
        let text = format!("ca {{\n  {inner}\n}}\n");
        ServerConfig::parse(&[("s", text.as_str())])
    };
    let import = read("import {\n cert_file = \"/c\"\n key_file = \"/k\"\n }")
        .unwrap()
        .ca
        .import;
    let import = import.unwrap();
    assert_eq!(import.key_file, PathBuf::from("/k"));
    assert_eq!(import.root_key_file, None);
    let wrong = read("import {\n cert_file = \"/c\"\n }")
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("key_file is missing"), "{wrong}");
    let wrong = read("import {\n key = \"secret\"\n }")
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("key"), "{wrong}");
}
