//! Reading what the user names: a file, a folder of `.hcl` files, or `-`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mesh_model::{Diagnostic, Diagnostics, Entry, Located, Place, consul, hcl};
use zeroize::Zeroizing;

use crate::console::Console;
use crate::error::CliError;

/// Longest file that is read, in bytes; what the parsers take at most.
const LONGEST: u64 = 1 << 20;
/// Most files of a folder.
const MOST: usize = 1000;

/// A file's name, as the user gave it, and its text.
pub(crate) type Source = (String, String);

/// The texts of files and folders, in the order given; a folder's by name.
pub(crate) fn sources(
    paths: &[PathBuf],
    console: &mut Console<'_>,
) -> Result<Vec<Source>, CliError> {
    let mut all = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = limited(&mut *console.input);
            all.push((
                "standard input".to_owned(),
                text.map_err(CliError::file(path))?,
            ));
        } else if path.is_dir() {
            for file in folder(path)? {
                all.push(source(&file)?);
            }
        } else {
            all.push(source(path)?);
        }
        if all.len() > MOST {
            return Err(CliError::refused(
                format!("{}: more than {MOST} files", path.display()),
                "Give a folder with fewer.",
            ));
        }
    }
    Ok(all)
}

/// What the HCL of these files says.
pub(crate) fn entries(sources: &[Source]) -> Result<Vec<Located<Entry>>, Diagnostics> {
    let mut wrong: Diagnostics = sources.iter().filter_map(foreign).collect();
    let foreign: Vec<String> = wrong.iter().map(|one| one.file.clone()).collect();
    let files: Vec<(&str, &str)> = sources
        .iter()
        .filter(|(name, _)| !foreign.contains(name))
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    match (hcl::parse_files(&files), wrong.is_empty()) {
        (read, true) => read,
        (Ok(_), false) => Err(wrong),
        (Err(more), false) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

/// What to say of a file that is for another command: all that its first
/// character would tell is that it is unexpected.
fn foreign((name, text): &Source) -> Option<Diagnostic> {
    let (message, hint) = if consul::is_config_entry(text) {
        (
            "this is one of Consul's config entries",
            "write it with `meshctl config write`, one entry a file",
        )
    } else if text.trim_start().starts_with(['{', '[']) {
        (
            "this is JSON, and HCL is read here",
            "of JSON `meshctl config write` takes Consul's config entries, by their `Kind`, and `meshctl intention \
             create -file` intentions",
        )
    } else {
        return None;
    };
    let place = Place {
        file: name.clone(),
        line: 1,
        column: 1,
    };
    let mut found = Diagnostic::new(place, message, text);
    found.hint = Some(hint.to_owned());
    Some(found)
}

/// A file's text.
pub(crate) fn source(path: &Path) -> Result<Source, CliError> {
    let text = File::open(path).and_then(limited);
    let text = text.map_err(CliError::file(path))?;
    Ok((path.display().to_string(), text))
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(path).map_err(CliError::file(path))? {
        let file = item.map_err(CliError::file(path))?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if file.extension().is_some_and(|end| end == "hcl") && !hidden && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(CliError::refused(
            format!("{}: has no file that ends in .hcl", path.display()),
            "Folders within it are not looked into; name them too.",
        ));
    }
    files.sort();
    Ok(files)
}

/// The text of a file, or of standard input, that may be secret: it wipes itself.
pub(crate) fn text(path: &Path, console: &mut Console<'_>) -> Result<Zeroizing<String>, CliError> {
    let text = match path.as_os_str() == "-" {
        true => limited(&mut *console.input),
        false => File::open(path).and_then(limited),
    };
    text.map(Zeroizing::new).map_err(CliError::file(path))
}

fn limited(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LONGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(std::io::Error::other("is longer than 1 MiB")),
        false => Ok(text),
    }
}
