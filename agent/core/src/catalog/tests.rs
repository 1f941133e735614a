#![allow(clippy::unwrap_used)]

use super::*;
use mesh_consul::register::parse;
use serde_json::json;

fn open(folder: &Path) -> Catalog {
    bound(folder, None)
}

fn bound(folder: &Path, bind: Option<IpAddr>) -> Catalog {
    let settings = Settings {
        bind,
        ports: 21000..=21255,
        limit: 8,
        node: "n1".into(),
        address: "10.0.0.1".into(),
    };
    Catalog::open(folder, settings).unwrap()
}

fn web(id: &str) -> (Registration, Option<Value>) {
    let body = json!({"ID": id, "Name": "web", "Port": 80, "Unknown": 1,
                      "Check": {"TTL": "10s"}, "Connect": {"SidecarService": {}}});
    (parse(&body).unwrap().registration, Some(body))
}

fn put(catalog: &Catalog, id: &str, owner: Owner) -> Result<(), CatalogError> {
    let (registration, body) = web(id);
    catalog.register(registration, body, owner, true)
}

fn port(catalog: &Catalog, id: &str) -> u16 {
    let view = catalog.view();
    view.instance(id)
        .unwrap()
        .registration
        .sidecar
        .as_ref()
        .unwrap()
        .port
}

#[test]
fn a_registration_is_there_after_a_restart_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let before = catalog.view();
    assert!((21000..=21255).contains(&port(&catalog, "a")));
    drop(catalog);
    let catalog = open(folder.path());
    assert_eq!(*catalog.view().0, *before.0);
    // The picked port stays, also when it is registered again.
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    assert_eq!(*catalog.view().0, *before.0);
    catalog.deregister("a", &Owner::Uid(0)).unwrap();
    assert_eq!(open(folder.path()).view().len(), 0);
}

#[test]
fn the_sidecars_checks_follow_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let view = catalog.view();
    let (_, check) = view.check("service:a-sidecar-proxy:2").unwrap();
    let address = format!("127.0.0.1:{}", port(&catalog, "a"));
    assert_eq!(check.kind, CheckKind::Tcp { address });
}

#[test]
fn a_sidecar_listens_where_the_agent_says_and_its_check_goes_there() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = bound(folder.path(), Some([127, 0, 0, 2].into()));
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let view = catalog.view();
    let sidecar = view
        .instance("a")
        .unwrap()
        .registration
        .sidecar
        .clone()
        .unwrap();
    assert_eq!(sidecar.proxy.bind_address.as_deref(), Some("127.0.0.2"));
    let (_, check) = view.check("service:a-sidecar-proxy:2").unwrap();
    let address = format!("127.0.0.2:{}", sidecar.port);
    assert_eq!(check.kind, CheckKind::Tcp { address });
}

#[test]
fn another_owner_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(1000)).unwrap();
    let error = put(&catalog, "a", Owner::Uid(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "instance a was registered by uid 1000; only its owner may change it"
    );
    let (_, body) = web("a");
    let check = parse(&body.unwrap()).unwrap().registration.checks.remove(0);
    assert!(catalog.add_check("a", check, &Owner::Token).is_err());
    assert!(catalog.remove_check("service:a", &Owner::Token).is_err());
    assert!(catalog.deregister("a", &Owner::Token).is_err());
    assert!(
        catalog
            .deregister("a-sidecar-proxy", &Owner::Token)
            .is_err()
    );
    catalog.deregister("a", &Owner::Uid(0)).unwrap();
}

#[test]
fn a_sidecar_goes_before_its_instance() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    catalog
        .deregister("a-sidecar-proxy", &Owner::Uid(0))
        .unwrap();
    let entry = catalog.view().instance("a").unwrap().clone();
    assert_eq!(entry.services("dc1").len(), 1);
    assert_eq!(entry.checks().count(), 1);
    catalog.deregister("nobody", &Owner::Uid(0)).unwrap();
}

#[test]
fn ids_and_the_number_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let taken = put(&catalog, "a-sidecar-proxy", Owner::Uid(0)).unwrap_err();
    assert!(matches!(taken, CatalogError::Taken { .. }));
    let (mut other, _) = web("b");
    other.checks[0].id = "service:a".into();
    let taken = catalog
        .register(other, None, Owner::Uid(0), true)
        .unwrap_err();
    assert!(matches!(taken, CatalogError::Taken { .. }));
    for n in 1..8 {
        put(&catalog, &format!("n{n}"), Owner::Uid(0)).unwrap();
    }
    let many = put(&catalog, "more", Owner::Uid(0)).unwrap_err();
    assert!(matches!(many, CatalogError::TooMany(8)));
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let ports: BTreeSet<u16> = (1..8).map(|n| port(&catalog, &format!("n{n}"))).collect();
    assert_eq!(ports.len(), 7);
}

#[test]
fn added_checks_stay_until_they_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let body = json!({"ServiceID": "a", "ID": "extra", "Name": "x", "TTL": "1s"});
    let check = mesh_consul::check::parse(&body).unwrap().check;
    catalog
        .add_check("a", check.clone(), &Owner::Uid(0))
        .unwrap();
    assert!(catalog.add_check("nobody", check, &Owner::Uid(0)).is_err());
    let (registration, body) = web("a");
    catalog
        .register(registration.clone(), body.clone(), Owner::Uid(0), false)
        .unwrap();
    assert!(catalog.view().check("extra").is_some());
    catalog
        .register(registration, body, Owner::Uid(0), true)
        .unwrap();
    assert!(catalog.view().check("extra").is_none());
}

#[test]
fn a_bad_file_changes_nothing() {
    let (folder, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let catalog = open(folder.path());
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    write(
        "a.hcl",
        "instance \"a\" {\n  port = 80\n  connect {\n    sidecar_service {}\n  }\n}\n",
    );
    write("b.hcl", "instance \"b\" {\n  port = 81\n}\n");
    assert_eq!(catalog.load_files(files.path()).unwrap(), 2);
    put(&catalog, "c", Owner::Uid(0)).unwrap();
    let before = catalog.view();

    write("a.hcl", "instance \"a\" {\n  port = 90\n}\n");
    write("b.hcl", "instance \"b\" {\n  prot = 81\n}\n");
    let error = catalog.load_files(files.path()).unwrap_err().to_string();
    assert!(error.contains("b.hcl:2"), "{error}");
    assert_eq!(*catalog.view().0, *before.0);

    // What another owner has is refused, and again nothing changes.
    write("b.hcl", "instance \"c\" {\n  port = 81\n}\n");
    assert!(catalog.load_files(files.path()).is_err());
    assert_eq!(*catalog.view().0, *before.0);

    write("b.hcl", "");
    assert_eq!(catalog.load_files(files.path()).unwrap(), 1);
    let view = catalog.view();
    assert_eq!(view.instance("a").unwrap().registration.port, 90);
    assert!(view.instance("b").is_none() && view.instance("c").is_some());
    drop(catalog);
    assert_eq!(*open(folder.path()).view().0, *view.0);
}

#[test]
fn no_more_is_registered_than_a_server_takes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    let register = |id: &str, bytes: usize| {
        let (mut registration, body) = web(id);
        let meta = [("filler".to_owned(), "x".repeat(bytes))];
        registration.meta = meta.into();
        catalog.register(registration, body, Owner::Uid(0), true)
    };
    let third = MAX_CATALOG / 3;
    register("a", third).unwrap();
    register("b", third).unwrap();
    let error = register("c", third).unwrap_err();
    assert!(matches!(error, CatalogError::TooLarge { .. }), "{error}");
    register("c", 1000).unwrap();
    register("a", third).unwrap(); // anew: it takes its own place
    assert!(register("c", third).is_err());
    // What is registered is what a stream begins with.
    let view = catalog.view();
    let all: Vec<_> = view
        .iter()
        .map(|it| it.instance("n1", "10.0.0.1", |_| Status::Critical))
        .collect();
    assert!(serde_json::to_vec(&all).unwrap().len() <= MAX_CATALOG);
}

#[test]
fn an_added_check_with_the_id_of_a_sidecars_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path());
    put(&catalog, "a", Owner::Uid(0)).unwrap();
    let id = "service:a-sidecar-proxy:2";
    let body = json!({"ServiceID": "a", "ID": id, "Name": "mine", "TTL": "9s"});
    let check = mesh_consul::check::parse(&body).unwrap().check;
    catalog.add_check("a", check, &Owner::Uid(0)).unwrap();
    let view = catalog.view();
    let all: Vec<_> = view
        .iter()
        .flat_map(|it| it.checks())
        .filter(|(_, it)| it.id == id)
        .collect();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1.name, "mine");
    // And what Nomad registers anew, without replacing, is taken.
    let (registration, body) = web("a");
    catalog
        .register(registration, body, Owner::Uid(0), false)
        .unwrap();
}
