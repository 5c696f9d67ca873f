//! Whole pages: well formed, escaped, small, and free of requests, whatever the data.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;

use dualenc_report::{
    ClassResult, Classification, ComparedRun, Comparison, Confusion, EmbeddingMap, EvalPoint, Evaluation, Figure,
    FoundImage, MapPoint, PageOptions, PairCard, PairScores, Picture, Report, RetrievalExamples, SearchQuery,
    SearchResult, SearchResults, TextQuery, TrainStep, render_comparison, render_report, render_results, similarities,
};
use scraper::{Html, Selector};

const MOST_BYTES: usize = 5_000_000;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn select<'a>(page: &'a Html, selector: &str) -> Vec<scraper::ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

/// Parses a page and checks what holds for each.
fn checked(text: &str) -> Html {
    assert!(text.len() < MOST_BYTES, "{} bytes", text.len());
    let page = Html::parse_document(text);
    assert!(page.errors.is_empty(), "{:?}", &page.errors[..page.errors.len().min(5)]);
    for (element, attribute) in [("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("a", "href")]
    {
        for found in select(&page, &format!("{element}[{attribute}]")) {
            let target = found.value().attr(attribute).unwrap();
            assert!(target.starts_with("data:") || target.starts_with('#'), "{element} asks for {target}");
        }
    }
    assert_eq!(select(&page, "script").len(), 1);
    assert!(!text.contains("@import") && !text.contains("url("));
    let content = text.split("<script>").next().unwrap();
    assert!(!content.contains("NaN") && !content.contains(">inf"));
    assert_eq!(select(&page, "html[lang], h1, main").len(), 3);
    let ids: Vec<&str> = select(&page, "[id]").iter().map(|found| found.value().attr("id").unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id stands twice");
    for link in select(&page, "a[href]") {
        assert!(ids.contains(&&link.value().attr("href").unwrap()[1..]));
    }
    let mut level = 0;
    for heading in select(&page, "h1, h2, h3, h4") {
        let next: u32 = heading.value().name()[1..].parse().unwrap();
        assert!(next <= level + 1, "{}", heading.text().collect::<String>());
        level = next;
    }
    page
}

fn report(name: &str) -> (Report, String) {
    let report: Report = serde_json::from_str(&fixture(name)).unwrap();
    let page = render_report(&report, &PageOptions::default());
    (report, page)
}

#[test]
fn full_report_has_every_part() {
    let page = checked(&report("report").1);
    for id in ["overview", "eval-0", "eval-1", "training", "embeddings", "pairs", "data", "model", "config", "warnings"]
    {
        assert_eq!(select(&page, &format!("main > section#{id}")).len(), 1, "{id}");
    }
    for id in ["loss", "learning-rate", "logit-scale", "grad-norm", "spread", "throughput", "waiting", "similarities"] {
        assert_eq!(select(&page, &format!("figure#{id} svg[role=img] > desc")).len(), 1, "{id}");
    }
    for id in ["eval-0-confusion", "eval-0-calibration", "embedding-map"] {
        assert_eq!(select(&page, &format!("figure#{id} details table")).len(), 1, "{id}");
    }
    assert_eq!(select(&page, "li.card").len(), 6);
    assert_eq!(select(&page, "#pairs img").len(), 18);
    assert_eq!(select(&page, "#eval-1 ol.five > li.tile").len(), 20);
}

#[test]
fn young_empty_and_odd_reports_are_pages() {
    let young = report("young").1;
    checked(&young);
    assert!(young.contains("No evaluation has run yet") && young.contains("1 value is not finite"));
    checked(&report("empty").1);
    checked(&report("odd").1);
}

#[test]
fn data_cannot_become_markup() {
    let page = checked(&report("odd").1);
    let text: String = select(&page, "main").iter().flat_map(|main| main.text()).collect();
    assert!(text.contains("<script>alert(1)</script>") && text.contains("<script>alert(2)</script>"));
    assert_eq!(select(&page, "h1 b").len(), 0);
}

#[test]
fn fixtures_survive_json() {
    let (first, page) = report("report");
    let again: Report = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!(render_report(&again, &PageOptions::default()), page);
}

#[test]
fn comparison_marks_the_best() {
    let comparison: Comparison = serde_json::from_str(&fixture("comparison")).unwrap();
    let page = checked(&render_comparison(&comparison, &PageOptions::default()));
    assert_eq!(select(&page, "#figures td.best").len(), 3);
    assert_eq!(select(&page, "#config tbody tr").len(), 4);
    assert_eq!(select(&page, "#training figure").len(), 6);
    checked(&render_comparison(&Comparison::default(), &PageOptions::default()));
    let empty = Comparison { runs: vec![ComparedRun::default(); 30], ..Comparison::default() };
    checked(&render_comparison(&empty, &PageOptions::default()));
}

#[test]
fn results_are_in_order() {
    let results: SearchResults = serde_json::from_str(&fixture("results")).unwrap();
    let page = checked(&render_results(&results, &PageOptions::default()));
    assert_eq!(select(&page, "#query-0 li.tile img").len(), 20);
    assert_eq!(select(&page, "#query-1 .ask img").len(), 1);
    let first: String = select(&page, "#query-0 li .score")[0].text().collect();
    assert_eq!(first, "1. 0.610");
    checked(&render_results(&SearchResults::default(), &PageOptions::default()));
}

/// A thumbnail of `bytes` bytes that starts as a JPEG file does.
fn thumbnail(bytes: usize) -> Picture {
    let mut picture = Picture { path: "a.jpg".to_owned(), bytes: vec![0xff, 0xd8, 0xff] };
    picture.bytes.resize(bytes, 7);
    picture
}

#[test]
fn pictures_have_a_budget() {
    let result = SearchResult { picture: thumbnail(60_000), score: 0.5, caption: None };
    let query = SearchQuery { text: Some("x".to_owned()), picture: None, results: vec![result; 200] };
    let results = SearchResults { queries: vec![query], ..SearchResults::default() };
    let page = render_results(&results, &PageOptions::default());
    assert_eq!(select(&checked(&page), "img").len(), 26);
    assert!(page.contains("174 of 200 pictures left out to keep this file small."));
    let small = PageOptions { picture_bytes: 0 };
    assert_eq!(select(&checked(&render_results(&results, &small)), "img").len(), 0);
}

#[test]
fn largest_report_is_below_5_mb() {
    let name = |at: usize| format!("class {at} with a name of some length, as WordNet has them, <and> & more");
    let number = 1_000;
    let step = |step: u64| TrainStep {
        loss: (step as f64).sin(),
        learning_rate: 1.0 / step as f64,
        grad_norms: (0..12).map(|part| (format!("part_{part}"), (step * part % 97) as f64)).collect(),
        ..TrainStep::new(step)
    };
    let point = |step: u64| EvalPoint {
        step,
        metrics: (0..30).map(|k| (format!("recall@{k}"), Figure::with_interval(0.5, 0.4, 0.6))).collect(),
    };
    let classes = (0..number).map(|at| ClassResult { name: name(at), images: 50, hits: 30, ..Default::default() });
    let confusions = (0..20 * number).map(|at| Confusion { label: at % number, predicted: at / 7 % number, count: 1 });
    let found = vec![FoundImage { picture: thumbnail(20_000), score: 0.3, is_match: false }; 10];
    let evaluation = Evaluation {
        name: "large".to_owned(),
        points: (0..500).map(point).collect(),
        classification: Some(Classification {
            classes: classes.collect(),
            confusions: confusions.collect(),
            ..Default::default()
        }),
        retrieval: Some(RetrievalExamples {
            texts: vec![TextQuery { text: "word ".repeat(100_000), found, rank: None }; 50],
            ..Default::default()
        }),
        ..Default::default()
    };
    let points = |kind: &str| -> Vec<MapPoint> {
        (0..20_000).map(|at| MapPoint { x: at as f64, y: (at as f64).cos(), title: kind.repeat(40) }).collect()
    };
    let report = Report {
        steps: (1..=20_000).map(step).collect(),
        evaluations: vec![evaluation],
        config_text: Some("key = 1\n".repeat(1_000_000)),
        pairs: Some(PairScores {
            worst: vec![PairCard { picture: thumbnail(20_000), caption: "日本".repeat(10_000), score: 0.0 }; 100],
            ..Default::default()
        }),
        map: Some(EmbeddingMap {
            images: points("image "),
            texts: points("text "),
            pairs: (0..20_000).map(|at| [at, at]).collect(),
            ..Default::default()
        }),
        similarities: Some(similarities(&vec![0.5; 10_000], &vec![f32::NAN; 10_000])),
        ..Report::default()
    };
    let page = render_report(&report, &PageOptions::default());
    let page = checked(&page);
    assert_eq!(select(&page, "#embedding-map .dot").len(), 4_000);
    assert_eq!(select(&page, "#eval-0 .tall:first-child tbody tr").len(), number);
}

#[test]
fn pictures_give_way_to_the_rest() {
    let names = |at: usize| format!("a class with quite a long name, number {at:06}");
    let class = |at: usize| ClassResult { name: names(at), images: 5, ..Default::default() };
    let evaluation = Evaluation {
        classification: Some(Classification { classes: (0..2_000).map(class).collect(), ..Default::default() }),
        ..Default::default()
    };
    let card = PairCard { picture: thumbnail(10_000), ..Default::default() };
    let report = Report {
        evaluations: vec![evaluation; 9],
        pairs: Some(PairScores { worst: vec![card; 150], ..Default::default() }),
        ..Report::default()
    };
    let page = render_report(&report, &PageOptions::default());
    let shown = select(&checked(&page), "img").len();
    assert!(shown > 0 && shown < 150, "{shown}");
    assert!(page.contains(&format!("{} of 150 pictures left out", 150 - shown)));
}

#[test]
fn rows_give_way_where_evaluations_are_many() {
    let class =
        |at: usize| ClassResult { name: format!("{}{at:06}", "類".repeat(70)), images: 5, ..Default::default() };
    let evaluation = Evaluation {
        classification: Some(Classification { classes: (0..2_000).map(class).collect(), ..Default::default() }),
        ..Default::default()
    };
    let report = Report { evaluations: vec![evaluation; 12], ..Report::default() };
    let page = render_report(&report, &PageOptions::default());
    assert_eq!(select(&checked(&page), "#eval-11 .tall tbody tr").len(), 500);
    assert!(page.contains("1,500 rows left out to keep this file small."));
}
