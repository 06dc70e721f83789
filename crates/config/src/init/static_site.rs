//! A directory with an index.html is a web site.

use super::draft::{Draft, DraftRuns, DraftService};
use super::files::Files;

/// Where site generators leave what they made, after the directory itself.
const PLACES: [&str; 4] = [".", "public", "dist", "site"];

pub(super) fn read(files: &Files) -> Option<Draft> {
    let place = PLACES.iter().find(|place| files.has(&format!("{place}/index.html")))?;
    let mut draft = Draft::default();
    draft.services.push(DraftService {
        name: "web".to_owned(),
        runs: DraftRuns::Static { dir: (*place).to_owned(), spa: false },
        dir: Some(files.dir.clone()),
        route: Some("/".to_owned()),
        ..DraftService::default()
    });
    let file = crate::value::path::join(&files.dir, &format!("{place}/index.html"));
    draft.notes.mapped(file.trim_start_matches("./"), 1, "(the file)", "service.web.static");
    Some(draft)
}
