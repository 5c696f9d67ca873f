//! What a file is, by its name and its content, and keys that do not fit.

use std::path::Path;

use dualenc_data::{Source, SourceTable, recognise};

use crate::support::golden;
use crate::tables::{read, read_with};

#[test]
fn empty_and_unknown_files_are_refused() {
    assert!(read("d.csv", "").unwrap_err().contains("holds no samples: found an empty file"));
    let error = read("d.csv", "image,caption\n").unwrap_err();
    assert!(error.contains("found comma-separated, UTF-8, header, and no usable row; expected"), "{error}");
    let error = read("d.csv", "image,caption\na.png,\n").unwrap_err();
    assert!(error.contains("no usable row: empty caption (1)"), "{error}");
    let error = Source::from_path("x/data.xlsx").unwrap_err().to_string();
    assert_eq!(
        error,
        "`x/data.xlsx` has the extension `xlsx`; expected `csv`, `tsv`, `txt` (a table), `jsonl`, `json`, `tar` (also \
         as a pattern such as `{000..127}.tar`) or `parquet`, or a folder of images or shards; spreadsheets are not \
         read; convert it: `libreoffice --headless --convert-to csv FILE`"
    );
}

#[test]
fn keys_are_checked() {
    let mut source: SourceTable =
        toml::from_str("[csv]\npath = \"d.csv\"\nroot = \"images\"\ndelimiter = \";\"").unwrap();
    source.resolve(Path::new("/config"));
    let csv = source.csv.unwrap();
    assert_eq!(csv.path, Path::new("/config/d.csv"));
    assert_eq!(csv.root.as_deref(), Some(Path::new("/config/images")));
    assert_eq!((csv.delimiter, csv.caption), (Some(';'), None));
    let error = toml::from_str::<SourceTable>("[csv]\npath = \"d.csv\"\nimages = \"x\"").unwrap_err().to_string();
    assert!(error.contains("unknown field `images`"), "{error}");
    let error = read_with("d.csv", "image,caption\n", |source| source.delimiter = Some('\u{2026}')).unwrap_err();
    assert!(error.contains("expected an ASCII character"), "{error}");
}

#[test]
fn recognise_describes_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, description) in [
        (
            "d.csv",
            "filepath,title\na.png,x\n",
            "comma-separated, UTF-8, header; image from `filepath`, caption from `title`",
        ),
        ("d.txt", "a.png\tx\n", "tab-separated, UTF-8, no header; image from column 1, caption from column 2"),
        ("d.jsonl", "{\"image\": \"a.png\"}\n{}", "JSON lines, UTF-8"),
        ("d.json", "[{}]", "JSON list, UTF-8"),
        (
            "e.jsonl",
            "\n{\"file_name\": \"a.png\", \"text\": \"x\"}\n",
            "JSON lines, UTF-8; image from `file_name`, caption from `text`",
        ),
        (
            "e.json",
            "{\"data\": [{\"img\": \"a.png\", \"legend\": [\"x\"], \"id\": \"7\"}]}",
            "JSON list under `data`, UTF-8; image from `img`, caption from `legend`",
        ),
        ("data", "{\"images\": [{\"sentences\": []}]}", "JSON list under `images`, UTF-8"),
        ("c.json", "{\"annotations\": [{}], \"images\": [{}]}", "COCO captions, UTF-8"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert_eq!(recognise(&path).unwrap().description, description, "{name}");
    }
    // The columns are in the table that is written, and read the same rows.
    for (name, columns) in
        [("d.csv", [Some("filepath"), Some("title"), None]), ("d.txt", [Some("1"), Some("2"), Some("no header")])]
    {
        let table = recognise(&dir.path().join(name)).unwrap().source;
        let csv = table.csv.clone().unwrap();
        let header = csv.header.map(|header| if header { "header" } else { "no header" });
        assert_eq!([csv.image.as_deref(), csv.caption.as_deref(), header], columns);
        let dataset = table.read().unwrap();
        assert_eq!((dataset.num_captions(), dataset.caption(0).text), (1, "x"), "{name}");
        let Source::Csv(unset) = Source::from_path(dir.path().join(name)).unwrap() else { panic!("{name}") };
        assert_eq!((unset.image, unset.caption, unset.header), (None, None, None));
    }
    let jsonl = recognise(&dir.path().join("e.jsonl")).unwrap().source.jsonl.unwrap();
    assert_eq!((jsonl.image.as_deref(), jsonl.caption.as_deref()), (Some("file_name"), Some("text")));
    let json = recognise(&dir.path().join("e.json")).unwrap().source;
    assert_eq!(json.json.as_ref().unwrap().caption.as_deref(), Some("legend"));
    assert_eq!(json.read().unwrap().num_captions(), 1);
    let parquet = recognise(&golden("parquet/metadata.parquet")).unwrap();
    assert_eq!(parquet.description, "parquet, 1 file; image from `file_name`, caption from `text`");
    let columns = parquet.source.parquet.unwrap();
    assert_eq!((columns.image.as_deref(), columns.caption.as_deref()), (Some("file_name"), Some("text")));
    for name in ["classes/cat/a.png", "classes/dog/b.png", "classes/dog/c.png"] {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let classes = recognise(&dir.path().join("classes")).unwrap();
    assert_eq!(classes.description, "2 class folders with 3 images");
    assert!(classes.source.classes.is_some());
    std::fs::remove_dir_all(dir.path().join("classes")).unwrap();
    let error = recognise(dir.path()).unwrap_err().to_string();
    assert!(error.contains("it holds the tables `d.csv` and `e.jsonl`; name"), "{error}");
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::create_dir(dir.path()).unwrap();
    std::fs::write(dir.path().join("a.png"), b"").unwrap();
    assert!(recognise(dir.path()).unwrap().source.folder.is_some());
    std::fs::write(dir.path().join("0.tar"), b"").unwrap();
    assert!(recognise(dir.path()).unwrap().source.webdataset.is_some());
    assert!(recognise(&dir.path().join("{0..3}.tar")).unwrap().source.webdataset.is_some());
    assert!(recognise(&dir.path().join("0.tar.gz")).unwrap().source.webdataset.is_some());
    assert!(recognise(&dir.path().join("none.txt")).unwrap_err().to_string().contains("cannot read"));
    std::fs::write(dir.path().join("d.csv.gz"), b"\x1f\x8b\x08").unwrap();
    assert!(recognise(&dir.path().join("d.csv.gz")).unwrap_err().to_string().contains("gunzip"));
    std::fs::write(dir.path().join("d.txt"), "x;y\n1;2\n").unwrap();
    assert!(recognise(&dir.path().join("d.txt")).unwrap_err().to_string().contains("columns are `x`, `y`"));
    std::fs::write(dir.path().join("notes.md"), "# Notes\n").unwrap();
    assert!(recognise(&dir.path().join("notes.md")).unwrap_err().to_string().contains("the extension `md`; expected"));
}

#[test]
fn foreign_data_name_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let npz = [b"PK\x03\x04", &[0; 22][..], &[10, 0, 0, 0], b"images.npy"].concat();
    for (name, bytes, expected) in [
        ("d.arrow", &b"\xff\xff\xff\xff\x80\x01\0\0\x10\0"[..], "datasets.Dataset.from_file(sys.argv[1]).to_parquet"),
        ("d.tfrecord-00000-of-00002", b"\x86\0\0\0\0\0\0\0\xfe\xdc\xba\x98", "with `tf.data.TFRecordDataset`"),
        ("d.npz", &npz, "it is a numpy archive; write its images"),
        ("d.pkl", b"\x80\x04\x95\x10\0", "if it is a table, write it with `pandas.read_pickle"),
        ("d.xlsx", b"PK\x03\x04\0\0", "it is a zip archive; unpack it first"),
        ("d.h5", b"\x89HDF\r\n\x1a\n\0", "it is an HDF5 file; write its images as files"),
        ("d.mp4", b"\0\0\0\x20ftypisom", "it is an MP4 video; extract its frames first, for example with `ffmpeg"),
        ("d.7z", b"7z\xbc\xaf\x27\x1c\0", "unpack it first: `7z x FILE`"),
    ] {
        std::fs::write(path(name), bytes).unwrap();
        let error = recognise(&path(name)).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for (folder, file, expected) in [
        ("heic", "a.HEIC", "1 file left out: heic (1); convert the HEIC images: `for f in *.heic; do magick"),
        ("lmdb", "data.mdb", "LMDB databases are not read: write their records from Python"),
        ("saved", "data-00000-of-00001.arrow", "convert the Arrow files of the `datasets` library: `for f in *.arrow;"),
        ("zips", "a.zip", "convert the zip archives: `for f in *.zip; do unzip \"${f}\"; done`"),
        ("clips", "a.mp4", "for f in *.mp4; do ffmpeg -i \"${f}\" -vf fps=1 \"${f%.*}-%05d.jpg\"; done`"),
    ] {
        std::fs::create_dir(path(folder)).unwrap();
        std::fs::write(path(folder).join(file), b"\0").unwrap();
        let error = recognise(&path(folder)).unwrap().source.read().unwrap_err().to_string();
        assert!(error.contains(expected), "{folder}: {error}");
    }
}

#[test]
fn tables_in_folders_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let found = || recognise(dir.path());
    let long = format!("{{\"caption\": \"{}\"}}", "x".repeat(100));
    for (name, content) in [
        ("cat/1.png", ""),
        ("dog/1.png", ""),
        ("notes.txt", "one, two\nthree, four\n"),
        ("00000_stats.json", &long),
        ("loose.json", "{}"),
    ] {
        write(name, content);
    }
    assert_eq!(found().unwrap().description, "2 class folders with 2 images");
    write("sizes.csv", "width,height\n1,2\n");
    let description = found().unwrap().description;
    assert!(description.starts_with("2 class folders with 2 images, beside 1 table of no images"), "{description}");
    // A table says more than the names of folders.
    write("train.csv", "image,caption\ncat/1.png,x\n");
    let table = found().unwrap();
    assert_eq!(table.source.csv.as_ref().unwrap().caption.as_deref(), Some("caption"));
    assert!(table.description.starts_with("the table `train.csv` in it: comma-separated"), "{}", table.description);
    assert_eq!(table.source.read().unwrap().num_captions(), 1);
    write("val.jsonl", "{\"image\": \"dog/1.png\", \"caption\": \"y\"}\n");
    let error = found().unwrap_err().to_string();
    assert!(error.contains("it holds the tables `train.csv` and `val.jsonl`; name the one to read"), "{error}");
    write("metadata.csv", "file_name,text\ncat/1.png,x\n");
    assert!(found().unwrap().source.folder.is_some(), "metadata is for the images of the folder");
}

#[test]
fn files_beside_images_are_no_tables() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{{\"image\": \"1.png\", \"caption\": \"{}\"}}", "x".repeat(100));
    for (name, content) in [("1.png", ""), ("1.json", long.as_str()), ("2.png", ""), ("2.png.json", &long)] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    assert_eq!(recognise(dir.path()).unwrap().description, "a folder of 2 images");
    std::fs::remove_file(dir.path().join("1.png")).unwrap();
    assert!(recognise(dir.path()).unwrap().source.folder.is_some(), "it is as the file beside `2.png`");
    std::fs::remove_file(dir.path().join("2.png.json")).unwrap();
    assert!(recognise(dir.path()).unwrap().source.json.is_some(), "no image has such a file");
}

#[test]
fn doubled_names_are_refused() {
    let text = "image,caption,caption\na.png,x,y\n";
    let with = |captions: &[&str]| {
        let captions = captions.iter().map(|&name| name.to_owned()).collect();
        read_with("d.csv", text, |source| source.captions = Some(captions))
    };
    for captions in [&["caption"][..], &["caption", "caption"]] {
        let error = with(captions).unwrap_err();
        assert!(error.contains("`DIR/d.csv` is malformed: columns 2 and 3 are all named `caption`"), "{error}");
        assert!(error.contains("`image = \"1\"`"), "{error}");
    }
    let by_number = read_with("d.csv", text, |source| {
        (source.image, source.captions) = (Some("1".to_owned()), Some(vec!["2".to_owned(), "3".to_owned()]));
    });
    let by_number = by_number.unwrap();
    let texts: Vec<&str> = by_number.captions().map(|caption| caption.text).collect();
    assert_eq!((texts, by_number.warnings.len()), (vec!["x", "y"], 0));
    // What is recognised can be read again.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), text).unwrap();
    let found = recognise(&dir.path().join("d.csv")).unwrap().source;
    assert_eq!(found.read().unwrap().caption(0).text, "x");
}
