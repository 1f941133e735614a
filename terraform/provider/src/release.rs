//! What is published: the provider in the layouts that Terraform installs from.
//!
//! `terraform-provider-mesh mirror DIR` makes a filesystem mirror of this very program, and
//! `terraform-provider-mesh release DIR` what a registry takes: a zip for this platform, its
//! checksum, and the manifest. (The signature of the checksums is its publisher's, with `gpg
//! --detach-sign`.)

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

mod zip;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const NAME: &str = "terraform-provider-mesh";
/// Where `meshctl/mesh` is looked for, by Terraform and by OpenTofu.
const REGISTRIES: [&str; 2] = ["registry.terraform.io", "registry.opentofu.org"];

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct ReleaseError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReleaseError {
    let path = path.to_owned();
    move |source| ReleaseError { path, source }
}

/// As Go, and so Terraform, names this platform.
fn platform() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}_{machine}", std::env::consts::OS)
}

fn program() -> Result<PathBuf, ReleaseError> {
    std::env::current_exe().map_err(at(Path::new(NAME)))
}

/// A filesystem mirror, for `provider_installation { filesystem_mirror { path = DIR } }`.
pub(crate) fn mirror(folder: &Path) -> Result<(), ReleaseError> {
    let program = program()?;
    for registry in REGISTRIES {
        let of = folder
            .join(registry)
            .join("meshctl/mesh")
            .join(VERSION)
            .join(platform());
        fs::create_dir_all(&of).map_err(at(&of))?;
        let to = of.join(format!("{NAME}_v{VERSION}"));
        // A link is as good, where it is possible: the program is large.
        if to.exists() {
            fs::remove_file(&to).map_err(at(&to))?;
        }
        if fs::hard_link(&program, &to).is_err() {
            fs::copy(&program, &to).map_err(at(&to))?;
        }
    }
    Ok(())
}

/// What a registry takes, for this platform. Several platforms are released into one folder, each
/// by its own program: their checksums are gathered.
pub(crate) fn release(folder: &Path) -> Result<(), ReleaseError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let program = program()?;
    let bytes = fs::read(&program).map_err(at(&program))?;
    let archive = format!("{NAME}_{VERSION}_{}.zip", platform());
    let packed = zip::of_one(&format!("{NAME}_v{VERSION}"), &bytes);
    let manifest = format!("{NAME}_{VERSION}_manifest.json");
    let says = json!({ "version": 1, "metadata": { "protocol_versions": ["6.0"] } });
    for (name, bytes) in [
        (archive.as_str(), packed),
        (manifest.as_str(), format!("{says:#}\n").into_bytes()),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(at(&path))?;
    }
    sums(folder)
}

/// The checksums of all that is there of this version.
fn sums(folder: &Path) -> Result<(), ReleaseError> {
    let sums = folder.join(format!("{NAME}_{VERSION}_SHA256SUMS"));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let name = entry
            .map_err(at(folder))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        let ours = name.starts_with(&format!("{NAME}_{VERSION}_"));
        if ours && (name.ends_with(".zip") || name.ends_with("_manifest.json")) {
            names.push(name);
        }
    }
    names.sort();
    let mut text = String::new();
    for name in names {
        let path = folder.join(&name);
        let bytes = fs::read(&path).map_err(at(&path))?;
        let digest = Sha256::digest(&bytes);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{hex}  {name}\n"));
    }
    fs::write(&sums, text).map_err(at(&sums))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_release_has_what_a_registry_looks_for() {
        let folder = tempfile::tempdir().unwrap();
        release(folder.path()).unwrap();
        let sums = folder.path().join(format!("{NAME}_{VERSION}_SHA256SUMS"));
        let text = fs::read_to_string(sums).unwrap();
        let names: Vec<&str> = text
            .lines()
            .map(|line| line.split_once("  ").unwrap().1)
            .collect();
        let zip = format!("{NAME}_{VERSION}_{}.zip", platform());
        assert_eq!(names, [zip, format!("{NAME}_{VERSION}_manifest.json")]);
        assert!(
            text.lines()
                .all(|line| line.split_once("  ").unwrap().0.len() == 64)
        );
    }

    #[test]
    fn a_mirror_has_the_program_for_both_registries() {
        let folder = tempfile::tempdir().unwrap();
        // A second time, too.
        for _ in 0..2 {
            mirror(folder.path()).unwrap();
        }
        for registry in REGISTRIES {
            let of = folder
                .path()
                .join(registry)
                .join("meshctl/mesh")
                .join(VERSION);
            let program = of.join(platform()).join(format!("{NAME}_v{VERSION}"));
            assert!(fs::metadata(program).unwrap().len() > 1000);
        }
    }
}
