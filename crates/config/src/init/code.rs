//! What the code in one directory says about how it is built and started.

use super::draft::Draft;
use super::files::Files;
use super::{cargo_toml, package_json, pyproject, static_site};

/// The first of the known kinds that says what to run; what the others say is not lost.
pub(super) fn detect(files: &Files) -> Draft {
    let readers: [fn(&Files) -> Option<Draft>; 4] =
        [package_json::read, cargo_toml::read, pyproject::read, static_site::read];
    let mut found = Draft::default();
    for read in readers {
        if found.has_runnable() {
            break;
        }
        let Some(mut draft) = read(files) else { continue };
        draft.notes.mapped.splice(0..0, found.notes.mapped);
        draft.notes.unmapped.splice(0..0, found.notes.unmapped);
        draft.project = draft.project.or(found.project);
        found = draft;
    }
    found
}
