//! Instance files: read as a whole, taken as a whole.

use std::path::{Path, PathBuf};

use mesh_model::instance::parse_instances;
use mesh_model::{Diagnostics, Registration};

use crate::AgentError;

/// The largest instance file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Every instance of the folder's `*.hcl`, each with its file; by the files' names.
///
/// # Errors
/// When a file cannot be read or has a mistake, or two define the same instance: all that is
/// wrong, at once.
pub(crate) fn read(folder: &Path) -> Result<Vec<(PathBuf, Registration)>, AgentError> {
    let mut wrong = Diagnostics::default();
    let mut all: Vec<(PathBuf, Registration)> = Vec::new();
    for path in paths(folder)? {
        let text = text(&path)?;
        match parse_instances(&path.display().to_string(), &text) {
            Err(more) => wrong.extend(more),
            Ok(found) => {
                for one in found {
                    let id = &one.value.id;
                    if let Some((first, _)) = all.iter().find(|(_, other)| other.id == *id) {
                        return Err(AgentError::Instance(format!(
                            "{}:{}: instance {id} is defined in {} already; give one of the two an `id` of its own",
                            one.file,
                            one.line,
                            first.display()
                        )));
                    }
                    all.push((path.clone(), one.value));
                }
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(all),
        false => Err(AgentError::Files(wrong)),
    }
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>, AgentError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(AgentError::disk(folder))? {
        let path = entry.map_err(AgentError::disk(folder))?.path();
        if path.extension().is_some_and(|ext| ext == "hcl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, AgentError> {
    let found = std::fs::metadata(path).map_err(AgentError::disk(path))?;
    if found.len() > MAX_FILE {
        return Err(AgentError::Instance(format!(
            "{}: {} bytes, more than the {MAX_FILE} allowed",
            path.display(),
            found.len()
        )));
    }
    std::fs::read_to_string(path).map_err(AgentError::disk(path))
}
