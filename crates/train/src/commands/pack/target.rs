//! Writes samples, as shards or as files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use dualenc_data::{Dataset, ShardWriter};

use crate::commands::pack::manifest::write_staged;
use crate::commands::pack::request::{PackForm, PackRequest};
use crate::commands::pack::sample::{BadSample, Sample, original};
use crate::commands::staged_output::StagedFile;
use crate::error::TrainError;
use crate::run_dir::atomic_file::sync_parent;

/// The folder of the images.
const IMAGES: &str = "images";

/// The table of images and captions.
const TABLE: &str = "pairs.csv";

/// Start of the name of an image that is not complete. Sources ignore names that start with a dot.
const PARTIAL: &str = ".part-";

/// The name of a shard.
pub(crate) fn chunk_name(number: usize) -> String {
    format!("{number:06}.tar")
}

/// Where samples go.
pub(crate) struct Target<'a> {
    request: &'a PackRequest,
    shard: Option<Shard>,
}

/// A shard that is not yet visible under its name.
struct Shard {
    staged: StagedFile,
    tar: ShardWriter<BufWriter<File>>,
    path: PathBuf,
}

impl<'a> Target<'a> {
    pub fn new(request: &'a PackRequest) -> Self {
        Self { request, shard: None }
    }

    /// Starts shard or part number `number`.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn begin(&mut self, number: usize) -> Result<(), TrainError> {
        match self.request.form {
            PackForm::Webdataset => {
                let path = self.request.out.join(chunk_name(number));
                let staged = StagedFile::new(&path)?;
                let file = staged.file().try_clone().map_err(TrainError::write(&path))?;
                self.shard = Some(Shard { staged, tar: ShardWriter::new(BufWriter::new(file)), path });
                Ok(())
            }
            PackForm::Folder => {
                let images = self.request.out.join(IMAGES);
                fs::create_dir_all(&images).map_err(TrainError::write(&images))
            }
        }
    }

    /// Writes image number `image`.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn add(&mut self, image: usize, sample: &Sample) -> Result<(), TrainError> {
        let name = format!("{image:06}.{}", sample.extension);
        if let Some(Shard { tar, path, .. }) = &mut self.shard {
            let entries = [
                (name, Some(&sample.bytes)),
                (format!("{image:06}.txt"), sample.text.as_ref()),
                (format!("{image:06}.json"), Some(&sample.json)),
            ];
            let mut entries = entries.iter().filter_map(|(name, bytes)| Some((name, (*bytes)?)));
            return entries.try_for_each(|(name, bytes)| tar.add(name, bytes)).map_err(TrainError::write(path));
        }
        let images = self.request.out.join(IMAGES);
        let (partial, path) = (images.join(format!("{PARTIAL}{name}")), images.join(name));
        let write = || fs::write(&partial, &sample.bytes).and_then(|()| fs::rename(&partial, &path));
        write().map_err(|error| {
            let _ = fs::remove_file(&partial);
            TrainError::write(&path)(error)
        })
    }

    /// Makes the shard visible, and returns its bytes. `keep`: whether it has samples.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn commit(&mut self, keep: bool) -> Result<Option<u64>, TrainError> {
        let Some(Shard { staged, tar, path }) = self.shard.take().filter(|_| keep) else { return Ok(None) };
        let write = TrainError::write(&path);
        let finish = || {
            tar.finish()?.flush()?;
            staged.file().metadata()
        };
        let bytes = finish().map_err(write)?.len();
        staged.commit()?;
        Ok(Some(bytes))
    }

    /// Writes the table of a folder.
    ///
    /// # Errors
    /// [`TrainError::Write`], [`TrainError::Read`]; [`TrainError::Usage`] when an image is gone.
    pub fn finish(&self, dataset: &Dataset, bad: &[BadSample]) -> Result<(), TrainError> {
        if self.request.form == PackForm::Webdataset {
            return Ok(());
        }
        let images = self.request.out.join(IMAGES);
        let bad: HashSet<usize> = bad.iter().map(|bad| bad.image).collect();
        let names = names(&images, dataset.num_images())?;
        for (image, name) in names.iter().enumerate() {
            if name.is_none() && !bad.contains(&image) {
                return Err(TrainError::Usage(format!(
                    "`{}` lacks image {image:06}, which was written before; delete the directory and start again",
                    images.display()
                )));
            }
        }
        let table = self.request.out.join(TABLE);
        write_staged(&table, |file| {
            file.write_all(b"image,caption,original\n")?;
            for (image, name) in names.iter().enumerate() {
                let Some(name) = name.as_ref().filter(|_| !bad.contains(&image)) else { continue };
                let original = cell(&original(dataset, image));
                for &caption in dataset.captions_of(image) {
                    let caption = cell(dataset.caption(caption as usize).text);
                    writeln!(file, "{IMAGES}/{name},{caption},{original}")?;
                }
            }
            Ok(())
        })?;
        sync_parent(&images.join(TABLE))
    }
}

/// The file name of each image, by its number.
fn names(images: &Path, count: usize) -> Result<Vec<Option<String>>, TrainError> {
    let mut names = vec![None; count];
    for entry in fs::read_dir(images).map_err(TrainError::read(images))? {
        let name = entry.map_err(TrainError::read(images))?.file_name().to_string_lossy().into_owned();
        let number = name.split_once('.').and_then(|(number, _)| number.parse::<usize>().ok());
        if let Some(slot) = number.and_then(|number| names.get_mut(number)) {
            *slot = Some(name);
        }
    }
    Ok(names)
}

/// A cell of a table, in quotes where RFC 4180 wants them.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_needed() {
        assert_eq!(cell("a red circle"), "a red circle");
        assert_eq!(cell("black, \"white\""), "\"black, \"\"white\"\"\"");
        assert_eq!(cell("two\nlines"), "\"two\nlines\"");
    }
}
