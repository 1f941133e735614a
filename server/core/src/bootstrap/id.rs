//! A server's id: random, made once, in a file beside its data. A server whose data is gone gets
//! another one, since to Raft it is another server.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use rand::Rng;

use crate::error::ServerError;

const FILE: &str = "server-id";

/// The id in this folder; made if there is none.
pub(crate) fn server_id(dir: &Path) -> Result<u64, ServerError> {
    let path = dir.join(FILE);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ServerError::Data { path, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(id) if id > 0 => Ok(id),
            _ => Err(ServerError::ServerId { path }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            mesh_raft::make_dir(dir).map_err(io(dir))?;
            let id = rand::rng().random_range(1..=i64::MAX as u64);
            // Whole or not there, also after a power loss.
            let new = dir.join(format!("{FILE}.new"));
            let mut file = File::create(&new).map_err(io(&new))?;
            writeln!(file, "{id}").map_err(io(&new))?;
            file.sync_all().map_err(io(&new))?;
            fs::rename(&new, &path).map_err(io(&path))?;
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(io(dir))?;
            Ok(id)
        }
        Err(source) => Err(ServerError::Data { path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let id = server_id(&path).unwrap();
        assert_ne!(id, 0);
        assert_eq!(server_id(&path).unwrap(), id);
        for text in ["", "0", "x", "-1"] {
            fs::write(path.join(FILE), text).unwrap();
            let error = server_id(&path).unwrap_err();
            assert!(matches!(error, ServerError::ServerId { .. }), "{error}");
        }
    }
}
