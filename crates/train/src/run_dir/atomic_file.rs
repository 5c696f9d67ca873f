//! Writing a file so that its final name never shows half of it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::TrainError;

/// Writes `path` with `fill`, through a temporary name in the same directory, synced to the disk before the rename.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), TrainError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let result = write_synced(&temporary, fill).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(TrainError::write(path))?;
    sync_parent(path)
}

/// Creates `path`, fills it, and syncs it to the disk.
pub(crate) fn write_synced(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut writer = BufWriter::new(File::create(path)?);
    fill(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()
}

/// Makes a rename in the parent directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), TrainError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(TrainError::write(parent))
}
