//! A tower that an option of a command names: a directory, or a hub id.

use std::path::{Path, PathBuf};

use dualenc_data::nearest;
use dualenc_model::{Tower, check_tower_dir};

use crate::config::tower_reference::is_hub_id;
use crate::error::TrainError;
use crate::models::hub::settings::Hub;

/// Checks that `reference`, the value of `flag`, names a tower of this kind, as far as this machine tells: nothing is
/// downloaded. Returns what to say of a hub id that is not in the cache.
///
/// # Errors
/// [`TrainError::Model`] of `flag` when a directory is no such tower; [`TrainError::Usage`] when it is a path, and
/// there is no directory.
pub(crate) fn check_named_tower(
    reference: &str,
    tower: Tower,
    flag: &'static str,
) -> Result<Option<String>, TrainError> {
    let path = Path::new(reference);
    if let Some(dir) = cached_dir(reference) {
        return check_tower_dir(&dir, tower).map(|()| None).map_err(TrainError::of_key(flag));
    }
    if path.is_file() {
        return Err(TrainError::Usage(format!(
            "`{flag}`: `{reference}` is a file; name its directory, with `config.json` and `model.safetensors`"
        )));
    }
    let near = near_dir(path).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let holds_models = folder.filter(|folder| !model_dirs(folder).is_empty());
    if let (true, Some(folder)) = (is_hub_id(reference), holds_models) {
        let folder = folder.display();
        return Err(TrainError::Usage(format!(
            "`{flag}`: there is no directory `{reference}`{near}; expected a directory with `config.json` and \
             `model.safetensors`, as others in `{folder}` are; if a hub id is meant, write it into the config by hand"
        )));
    }
    if !is_hub_id(reference) {
        return Err(TrainError::Usage(format!(
            "`{flag}`: there is no directory `{reference}`{near}; expected a directory with `config.json` and \
             `model.safetensors`, or a hub id, such as `facebook/dinov2-small`"
        )));
    }
    Ok(Some(format!(
        "there is no directory `{reference}`: it is taken for a hub id, and fetched when it is needed{near}; if a \
         directory is meant, write `./{reference}`"
    )))
}

/// The directory of a tower, if it is there or in the hub's cache. Nothing is downloaded.
pub(crate) fn cached_dir(reference: &str) -> Option<PathBuf> {
    if Path::new(reference).is_dir() {
        return Some(PathBuf::from(reference));
    }
    let hub = Hub { offline: true, ..Hub::from_env().ok()? };
    is_hub_id(reference).then(|| hub.resolve(reference, &mut |_| {}).ok()).flatten()
}

/// The directory of a model beside `path` with a name like it.
fn near_dir(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let names = model_dirs(folder);
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(folder.join(near).display().to_string())
}

/// The names of the directories in `folder` that hold a model.
fn model_dirs(folder: &Path) -> Vec<String> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(listed).into_iter().flatten().flatten();
    let is_model = |dir: &Path| dir.join("config.json").is_file() || dir.join("open_clip_config.json").is_file();
    entries.filter(|entry| is_model(&entry.path())).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_hub_ids_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir(at("vit")).unwrap();
        std::fs::write(at("vit/config.json"), r#"{"model_type": "vit"}"#).unwrap();
        let check = |reference: &str| check_named_tower(reference, Tower::Image, "--image-tower");
        let error = |reference: &str| check(reference).unwrap_err().to_string();
        let missing = error(&at("vti"));
        assert!(missing.contains(&format!("there is no directory `{}`; did you mean `{}`?", at("vti"), at("vit"))));
        assert!(!error(&at("bert")).contains("did you mean"));
        assert!(error(&at("vit/config.json")).contains("is a file; name its directory"));
        // `src` is a folder here, without a model. An organisation of the hub may have the name of a folder.
        let note = check("src/vti").unwrap().unwrap();
        assert!(note.contains("`src/vti`: it is taken for a hub id") && note.contains("write `./src/vti`"), "{note}");
        let id = "dualenc-none/dualenc-none";
        let note = check(id).unwrap().unwrap();
        assert!(note.contains(&format!("there is no directory `{id}`: it is taken for a hub id")), "{note}");
        // It has a config, and no weights.
        assert!(error(&at("vit")).contains("--image-tower"));
    }
}
