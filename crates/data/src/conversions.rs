//! What makes data of a form that is not read into one that is, by the extension of their files.

/// A form, and how to convert it.
struct Form {
    /// In lower case.
    extensions: &'static [&'static str],
    /// Of its files: `HEIC images`.
    name: &'static str,
    way_out: WayOut,
}

enum WayOut {
    /// A command for one file: `IN` is its name, and `OUT` the same without the extension.
    Command(&'static str),
    /// What to do, in words.
    Words(&'static str),
}

use WayOut::{Command, Words};

const MAGICK: WayOut = Command("magick IN OUT.png");

/// Forms that people have images, tables and archives in.
const FORMS: [Form; 21] = [
    Form { extensions: &["heic", "heif", "hif"], name: "HEIC images", way_out: MAGICK },
    Form { extensions: &["avif", "avifs"], name: "AVIF images", way_out: MAGICK },
    Form { extensions: &["jxl"], name: "JPEG XL images", way_out: MAGICK },
    Form {
        extensions: &["jp2", "j2k", "jpf", "jpx", "jpc", "j2c", "jxr"],
        name: "JPEG 2000 or JPEG XR images",
        way_out: MAGICK,
    },
    Form {
        extensions: &[
            "xcf", "ico", "cur", "icns", "exr", "hdr", "dds", "tga", "pcx", "pfm", "sgi", "ras", "xbm", "xpm", "fits",
            "eps", "ai", "ps", "wmf", "emf",
        ],
        name: "images of other formats",
        way_out: MAGICK,
    },
    // The first image of the file is the picture of all layers.
    Form { extensions: &["psd", "psb"], name: "Photoshop documents", way_out: Command("magick IN[0] OUT.png") },
    Form {
        extensions: &[
            "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "dng", "orf", "rw2", "raf", "pef", "srw", "3fr",
            "x3f",
        ],
        name: "raw photos",
        way_out: Command("darktable-cli IN OUT.jpg"),
    },
    Form { extensions: &["svg", "svgz"], name: "SVG drawings", way_out: Command("rsvg-convert IN -o OUT.png") },
    Form { extensions: &["pdf"], name: "PDF documents", way_out: Command("pdfimages -png IN OUT") },
    Form {
        extensions: &["mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "3gp"],
        name: "videos",
        way_out: Command("ffmpeg -i IN -vf fps=1 OUT-%05d.jpg"),
    },
    Form { extensions: &["zip"], name: "zip archives", way_out: Command("unzip IN") },
    Form { extensions: &["7z"], name: "7z archives", way_out: Command("7z x IN") },
    Form { extensions: &["rar"], name: "rar archives", way_out: Command("unrar x IN") },
    Form {
        extensions: &["xlsx", "xlsm", "xls", "ods"],
        name: "spreadsheets",
        way_out: Command("libreoffice --headless --convert-to csv IN"),
    },
    Form {
        extensions: &["arrow"],
        name: "Arrow files of the `datasets` library",
        way_out: Command(
            "python3 -c 'import datasets, sys; datasets.Dataset.from_file(sys.argv[1]).to_parquet(sys.argv[2])' IN \
             OUT.parquet",
        ),
    },
    Form {
        extensions: &["feather"],
        name: "Feather files",
        way_out: Command(
            "python3 -c 'import pandas, sys; pandas.read_feather(sys.argv[1]).to_parquet(sys.argv[2])' IN \
             OUT.parquet",
        ),
    },
    Form {
        extensions: &["npy", "npz"],
        name: "numpy arrays",
        way_out: Words(
            "write their images as files from Python, for example with `PIL.Image.fromarray(array).save(NAME)`, and \
             their captions in a table",
        ),
    },
    Form {
        extensions: &["pkl", "pickle", "pt", "pth"],
        name: "Python pickles",
        way_out: Words(
            "they can run code when they are read: write them from Python as a table, for example with \
             `pandas.read_pickle(FILE).to_csv(\"pairs.csv\", index=False)`",
        ),
    },
    Form {
        extensions: &["h5", "hdf5"],
        name: "HDF5 files",
        way_out: Words(
            "write their images as files from Python, for example with `h5py` and `PIL.Image.fromarray`, and their \
             captions in a table",
        ),
    },
    Form {
        extensions: &["lmdb", "mdb"],
        name: "LMDB databases",
        way_out: Words("write their records from Python with `lmdb` as image files and a table, or as tar shards"),
    },
    Form {
        extensions: &["tfrecord", "tfrecords"],
        name: "TFRecord files",
        way_out: Words(
            "write their records from Python with `tf.data.TFRecordDataset` as image files and a table, or as tar \
             shards",
        ),
    },
];

/// The form of an extension in lower case. Parts of a TFRecord data set end as in `train.tfrecord-00000-of-00016`.
fn form(extension: &str) -> Option<&'static Form> {
    let bare = extension.split_once("-of-").and_then(|(before, _)| before.rsplit_once('-'));
    let extension = bare.map_or(extension, |(before, _)| before);
    FORMS.iter().find(|form| form.extensions.contains(&extension))
}

/// What one file of this extension is and what to do: ``HEIC images are not read; convert it: `magick FILE out.png` ``.
/// `None` if nothing is known.
pub(crate) fn of_file(extension: &str) -> Option<String> {
    let form = form(extension)?;
    Some(match form.way_out {
        Command(command) => {
            let command = command.replace("IN", "FILE").replace("OUT", "out");
            format!("{} are not read; convert it: `{command}`", form.name)
        }
        Words(words) => format!("{} are not read; {words}", form.name),
    })
}

/// As [`of_file`], of all files of this extension in a folder.
pub(crate) fn of_folder(extension: &str) -> Option<String> {
    let form = form(extension)?;
    Some(match form.way_out {
        Command(command) => {
            let word = |word: &str| match word {
                _ if word.contains("IN") => format!("\"{}\"", word.replace("IN", "${f}")),
                _ if word.contains("OUT") => format!("\"{}\"", word.replace("OUT", "${f%.*}")),
                _ => word.to_owned(),
            };
            let command = command.split(' ').map(word).collect::<Vec<_>>().join(" ");
            format!("convert the {}: `for f in *.{extension}; do {command}; done`", form.name)
        }
        Words(words) => format!("{} are not read: {words}", form.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_a_way_out() {
        for (extension, file, folder) in [
            (
                "heic",
                "HEIC images are not read; convert it: `magick FILE out.png`",
                "convert the HEIC images: `for f in *.heic; do magick \"${f}\" \"${f%.*}.png\"; done`",
            ),
            ("psd", "`magick FILE[0] out.png`", "do magick \"${f}[0]\" \"${f%.*}.png\"; done`"),
            ("nef", "raw photos are not read; convert it: `darktable-cli FILE out.jpg`", "for f in *.nef;"),
            ("svg", "`rsvg-convert FILE -o out.png`", "SVG drawings"),
            ("pdf", "`pdfimages -png FILE out`", "PDF documents"),
            ("mp4", "`ffmpeg -i FILE -vf fps=1 out-%05d.jpg`", "\"${f%.*}-%05d.jpg\""),
            ("zip", "`unzip FILE`", "do unzip \"${f}\"; done"),
            ("xlsx", "`libreoffice --headless --convert-to csv FILE`", "spreadsheets"),
            ("arrow", ".to_parquet(sys.argv[2])' FILE out.parquet`", "\"${f%.*}.parquet\"; done"),
            ("npz", "numpy arrays are not read; write their images", "numpy arrays are not read: write their images"),
            ("tfrecord-00000-of-00016", "TFRecord files are not read", "TFRecord files are not read"),
            ("mdb", "with `lmdb`", "LMDB databases"),
        ] {
            let found = (of_file(extension).unwrap(), of_folder(extension).unwrap());
            assert!(found.0.contains(file) && found.1.contains(folder), "{found:?}");
        }
        assert_eq!((of_file("png"), of_folder("md"), of_file("")), (None, None, None));
    }
}
