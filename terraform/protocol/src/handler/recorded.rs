//! What a real Terraform (1.11.4) said, byte for byte, said again: so that the protocol is held
//! to it where there is no Terraform.
//!
//! `recorded/record` runs it against [`serve`] and keeps each request as a file.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;

use super::tests::{Next, plugin};
use super::{Handler, value};
use crate::Type;
use crate::proto::tfplugin6 as wire;

/// Keeps a request, where somebody records.
pub(crate) fn record(name: &str, asked: &impl Message) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if let Some(folder) = std::env::var_os("RECORD_TO") {
        // Terraform starts the provider several times; processes follow each other.
        let started = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("{}-{count:04}.{name}", started.as_nanos());
        std::fs::write(FilePath::new(&folder).join(file), asked.encode_to_vec()).unwrap();
    }
}

/// The provider of these tests, for a real Terraform.
#[tokio::test]
#[ignore = "it is started by a real Terraform, to record what that says"]
async fn serve() {
    crate::serve(plugin(Next::Work, &Arc::default()).0).await;
}

fn folder() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("src/handler/recorded")
}

fn shown(ty: &Type, sent: Option<&wire::DynamicValue>) -> String {
    format!("{:?}", value(sent, ty).unwrap())
}

#[tokio::test]
async fn terraforms_own_words_are_understood() {
    let (plugin, ty) = plugin(Next::Work, &Arc::default());
    let handler = Handler::new(plugin);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some());
    files.sort();
    assert!(files.len() > 10, "there are recordings");
    let mut out = String::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let bytes = bytes.as_slice();
        writeln!(out, "{name}").unwrap();
        let said = match path.extension().unwrap().to_str().unwrap() {
            "validate_resource_config" => {
                let asked = wire::validate_resource_config::Request::decode(bytes).unwrap();
                writeln!(out, "  config {}", shown(&ty, asked.config.as_ref())).unwrap();
                handler.validate_resource(asked).await.diagnostics
            }
            "plan_resource_change" => {
                let asked = wire::plan_resource_change::Request::decode(bytes).unwrap();
                writeln!(out, "  config {}", shown(&ty, asked.config.as_ref())).unwrap();
                writeln!(out, "  prior {}", shown(&ty, asked.prior_state.as_ref())).unwrap();
                let proposed = asked.proposed_new_state.clone();
                let done = handler.plan(asked).await;
                let planned = shown(&ty, done.planned_state.as_ref());
                writeln!(out, "  planned {planned}").unwrap();
                writeln!(out, "  replaces {}", done.requires_replace.len()).unwrap();
                assert_eq!(planned == "Null", shown(&ty, proposed.as_ref()) == "Null");
                assert!(
                    !done
                        .planned_state
                        .unwrap()
                        .msgpack
                        .windows(6)
                        .any(|part| part == b"s3cret")
                );
                done.diagnostics
            }
            "apply_resource_change" => {
                let asked = wire::apply_resource_change::Request::decode(bytes).unwrap();
                writeln!(
                    out,
                    "  planned {}",
                    shown(&ty, asked.planned_state.as_ref())
                )
                .unwrap();
                let done = handler.apply(asked).await;
                writeln!(out, "  state {}", shown(&ty, done.new_state.as_ref())).unwrap();
                writeln!(
                    out,
                    "  private {}",
                    String::from_utf8(done.private).unwrap()
                )
                .unwrap();
                assert!(
                    !done
                        .new_state
                        .unwrap()
                        .msgpack
                        .windows(6)
                        .any(|part| part == b"s3cret")
                );
                done.diagnostics
            }
            "upgrade_resource_state" => {
                let asked = wire::upgrade_resource_state::Request::decode(bytes).unwrap();
                let done = handler.upgrade(asked).await;
                writeln!(out, "  state {}", shown(&ty, done.upgraded_state.as_ref())).unwrap();
                done.diagnostics
            }
            "read_resource" => {
                let asked = wire::read_resource::Request::decode(bytes).unwrap();
                let done = handler.read(asked).await;
                writeln!(out, "  state {}", shown(&ty, done.new_state.as_ref())).unwrap();
                done.diagnostics
            }
            "import_resource_state" => {
                let asked = wire::import_resource_state::Request::decode(bytes).unwrap();
                let done = handler.import(asked).await;
                let state = done.imported_resources.first().unwrap().state.as_ref();
                writeln!(out, "  state {}", shown(&ty, state)).unwrap();
                done.diagnostics
            }
            "call_function" => {
                let asked = wire::call_function::Request::decode(bytes).unwrap();
                let done = handler.call(asked);
                writeln!(
                    out,
                    "  result {}",
                    shown(&Type::Dynamic, done.result.as_ref())
                )
                .unwrap();
                Vec::new()
            }
            other => panic!("{other} is not replayed"),
        };
        for one in said {
            writeln!(out, "  said {}: {}", one.severity, one.summary).unwrap();
        }
    }
    insta::assert_snapshot!(out);
}
