//! Makes the paths of a configuration absolute, and distinguishes local towers from hub ids.

use std::path::{Component, Path, PathBuf};

use dualenc_data::is_builtin_templates;

use crate::config::schema::RunConfig;
use crate::config::schema::sources::EvalData;

/// Resolves every path of `config` against `directory`, the absolute directory of the config file.
pub(super) fn resolve(config: &mut RunConfig, directory: &Path) {
    let absolute = |path: &mut PathBuf| *path = join(directory, path);
    absolute(&mut config.run.dir);
    config.cache.dir.iter_mut().for_each(absolute);
    config.data.index_dir.iter_mut().for_each(absolute);
    for eval in config.eval.values_mut() {
        let templates = eval.templates.as_mut().filter(|path| !is_builtin_templates(path));
        let images = [eval.images.as_mut(), eval.train_images.as_mut()];
        let features = [&mut eval.image_features, &mut eval.labels, &mut eval.class_features, &mut eval.class_of];
        features.into_iter().flatten().for_each(absolute);
        images.into_iter().chain([eval.classnames.as_mut(), templates]).flatten().for_each(absolute);
        for data in [&mut eval.data, &mut eval.train_data].into_iter().flatten() {
            match data {
                EvalData::Path(path) => absolute(path),
                EvalData::Source(table) => table.resolve(directory),
            }
        }
    }
    config.data.train.tables_mut().iter_mut().for_each(|table| table.resolve(directory));
    let model = &mut config.model;
    let teacher = config.train.teacher.as_mut().map(|teacher| &mut teacher.model);
    let models = [&mut model.image_tower, &mut model.text_tower, &mut model.init];
    for reference in models.into_iter().flatten().chain(teacher) {
        if is_local(reference, directory)
            && let Some(path) = join(directory, Path::new(reference.as_str())).to_str()
        {
            *reference = path.to_owned();
        }
    }
}

/// Whether a tower is a local path: it starts with `/`, `./` or `../`, has more than one `/`, or exists relative to
/// `directory`. Anything else is a hub id, `name` or `org/name`.
fn is_local(reference: &str, directory: &Path) -> bool {
    let path = Path::new(reference);
    let written_as_path = path.is_absolute()
        || matches!(path.components().next(), Some(Component::CurDir | Component::ParentDir))
        || reference.matches('/').count() > 1;
    written_as_path || directory.join(path).exists()
}

/// `directory/path` without `.` components. Leading `..` components are resolved, since `directory` has no symbolic
/// links; later ones are not, since they may follow a symbolic link.
fn join(directory: &Path, path: &Path) -> PathBuf {
    let mut base = directory;
    let mut rest = path;
    while let (Ok(after), Some(parent)) = (rest.strip_prefix(".."), base.parent()) {
        (base, rest) = (parent, after);
    }
    base.join(rest).components().collect()
}
