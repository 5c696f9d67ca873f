//! What the `datasets` library says about the columns, in the metadata of a file under the key `huggingface`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

/// The names of the classes of each column of labels.
pub(crate) fn class_names(huggingface: Option<&str>) -> HashMap<String, Arc<[String]>> {
    let features: Option<Value> = huggingface.and_then(|text| serde_json::from_str(text).ok());
    let features = features.as_ref().and_then(|it| it.get("info")?.get("features")?.as_object());
    let mut found = HashMap::new();
    for (column, feature) in features.into_iter().flatten() {
        if let Some(names) = names(feature) {
            found.insert(column.clone(), Arc::from(names));
        }
    }
    found
}

/// Those of a label, or of a list of labels: `Sequence`, `List`, or an array with the one type of its entries.
fn names(feature: &Value) -> Option<Vec<String>> {
    if let Some([inner]) = feature.as_array().map(Vec::as_slice) {
        return names(inner);
    }
    match feature.get("_type")?.as_str()? {
        "ClassLabel" => feature.get("names")?.as_array()?.iter().map(|it| Some(it.as_str()?.to_owned())).collect(),
        "Sequence" | "List" | "LargeList" => names(feature.get("feature")?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_names() {
        let text = r#"{"info": {"features": {
            "image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
            "tags": {"feature": {"names": ["x"], "_type": "ClassLabel"}, "_type": "Sequence"}
        }}}"#;
        let found = class_names(Some(text));
        assert_eq!(found.len(), 2);
        assert_eq!(found["label"][..], ["cat", "dog"]);
        assert_eq!(found["tags"][..], ["x"]);
        assert!(class_names(Some("{")).is_empty() && class_names(None).is_empty());
    }
}
