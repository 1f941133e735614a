//! Commands that need no server: `validate`, `tls`, sealing keys.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Transcript, assert_fits, fake::Fake, run};

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn validate() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let good = write(
        dir.path(),
        "good.hcl",
        "service \"web\" {\n  protocol = \"http\"\n}\n\nroute \"web\" {\n  rule \"all\" {\n    to \
         {\n      service = \"other\"\n    }\n  }\n}\n",
    );
    let set = write(
        dir.path(),
        "set.hcl",
        "route \"users\" {\n  rule \"canary\" {\n    to \"v1\" {\n      weight = 90\n    }\n  }\n}\n\n\
         service \"db\" {\n}\n\nintention \"web\" \"db\" {\n  permission {\n    action      = \
         \"allow\"\n    path_prefix = \"/\"\n  }\n}\n",
    );
    let wrong = write(
        dir.path(),
        "wrong.hcl",
        "service \"web\" {\n  protocl = \"http\"\n}\n\nintention \"a\" {\n}\n",
    );
    let syntax = write(
        dir.path(),
        "syntax.hcl",
        "service \"web\" {\n  protocol = \n}\n",
    );
    let theirs = write(
        dir.path(),
        "theirs.json",
        r#"{"Kind": "service-defaults", "Name": "web", "Protocl": "http"}"#,
    );
    let theirs_of = |name: &str, text: &str| write(dir.path(), name, text);
    let splitter = theirs_of(
        "splitter.hcl",
        "Kind = \"service-splitter\"\nName = \"web\"\nSplits = [\n  { Weight = 50, ServiceSubset = \
         \"v9\" }\n]\n",
    );
    let defaults = theirs_of(
        "defaults.hcl",
        "Kind = \"service-defaults\"\nName = \"web\"\nProtocol = \"tcp\"\n",
    );
    let intentions = theirs_of(
        "intentions.json",
        "{\n  \"Kind\": \"service-intentions\",\n  \"Name\": \"web\",\n  \"Sources\": [\n    {\"Name\": \
         \"a\", \"Permissions\": [\n      {\"Action\": \"allow\", \"HTTP\": {\"PathPrefix\": \
         \"/\"}}]}\n  ]\n}\n",
    );
    let again = theirs_of("again.hcl", "Kind = \"service-defaults\"\nName = \"web\"\n");
    let server = write(
        dir.path(),
        "server.hcl",
        "bootstrap = true\nbootstrap_expect = 3\n",
    );
    let mut all = Transcript::default();
    for (line, code) in [
        (&["validate", &good][..], 0),
        (&["validate", &set], 1),
        (&["validate", &wrong], 1),
        (&["validate", &wrong, "-o", "json"], 1),
        (&["validate", &set, "-json"], 1),
        (&["validate", &syntax], 1),
        (&["validate", &theirs], 1),
        (&["validate", &splitter, &defaults, &intentions], 1),
        (&["validate", &splitter], 1),
        (&["validate", &defaults, &again], 1),
        (&["validate", &good, &defaults], 1),
        (&["validate", "-as", "server", &server], 1),
        (&["validate", &good, &wrong], 1),
    ] {
        assert_eq!(all.run(&fake, line).await.code, code, "{line:?}");
    }
    insta::assert_snapshot!(all.0.replace(&dir.path().display().to_string(), "DIR"));
}

#[tokio::test]
async fn certificates() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tls").display().to_string();
    let mut all = Transcript::default();
    let cert = |role: &'static str, id: &'static str| {
        let folder = folder.clone();
        [
            "tls".to_owned(),
            "cert".to_owned(),
            "create".to_owned(),
            format!("-{role}"),
            "-id".to_owned(),
            id.to_owned(),
            "-dir".to_owned(),
            folder,
        ]
    };
    let mut exits = Vec::new();
    let lines = [
        vec![
            "tls".to_owned(),
            "ca".into(),
            "create".into(),
            "-dir".into(),
            folder.clone(),
        ],
        vec![
            "tls".to_owned(),
            "ca".into(),
            "create".into(),
            "-dir".into(),
            folder.clone(),
        ],
        [
            &cert("server", "s1")[..],
            &["-additional-ipaddress".into(), "10.0.0.1".into()],
        ]
        .concat(),
        cert("server", "s1").to_vec(),
        cert("agent", "n1").to_vec(),
        cert("cli", "ann").to_vec(),
        cert("cli", "no/slash").to_vec(),
        vec![
            "tls".to_owned(),
            "cert".into(),
            "create".into(),
            "-cli".into(),
            "-id".into(),
            "x".into(),
            "-dir".into(),
            dir.path().join("none").display().to_string(),
        ],
    ];
    for line in &lines {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let ran = all.run(&fake, &line).await;
        exits.push(ran.code);
    }
    assert_eq!(exits, [0, 1, 0, 1, 0, 0, 1, 1]);
    for (file, mode) in [
        ("cluster-ca.pem", 0o644),
        ("cluster-ca.key", 0o600),
        ("server-s1.pem", 0o644),
        ("server-s1.key", 0o600),
        ("agent-n1.key", 0o600),
        ("cli-ann.key", 0o600),
    ] {
        let found = std::fs::metadata(Path::new(&folder).join(file)).unwrap();
        // The umask of whoever runs this may take more away.
        assert_eq!(found.permissions().mode() & 0o777 & !mode, 0, "{file}");
    }
    let file = |name: &str| Path::new(&folder).join(name);
    let tls = mesh_tls::ClusterTls::from_files(mesh_tls::ClusterFiles {
        ca_file: file("cluster-ca.pem"),
        cert_file: file("server-s1.pem"),
        key_file: file("server-s1.key"),
    });
    assert_eq!(
        tls.unwrap().id().unwrap().to_string(),
        "spiffe://meshctl.internal/server/s1"
    );
    let text = all.0.replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn sealing_keys_are_never_replaced() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sealing.key").display().to_string();
    let made = run(&fake, &["operator", "sealing-key", "create", &file], None).await;
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.starts_with("Created sealing key "), "{}", made.out);
    assert_fits(&made.out.replace(&file, "F"));
    let key = std::fs::read_to_string(&file).unwrap();
    let secret = key.lines().last().unwrap();
    assert!(!made.out.contains(secret));
    mesh_ca::SealingKey::from_file(Path::new(&file)).unwrap();
    let again = run(&fake, &["operator", "sealing-key", "create", &file], None).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("never replaced"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), key);
}
