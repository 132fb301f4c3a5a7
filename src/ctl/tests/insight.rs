//! Tables and JSON of what servers said.

use super::*;

fn sheet(rows: &[(&str, &str)]) -> InsightSheet {
    let mut sheet = InsightSheet { server: "a:1".into(), totals: Vec::new(), groups: Vec::new() };
    rows.iter().for_each(|(name, value)| sheet.put(name, (*value).to_owned()));
    sheet
}

#[test]
fn a_table_of_latencies() {
    let sheets = [sheet(&[("get:count", "5"), ("get:p50_us", "8.2"), ("get:max_us", "1500.0"), ("set:count", "0")])];
    let wanted = "SERVER  KIND  COUNT  P50     P90  P99  P99.9  MAX\n\
        a:1     get   5      8.2 us  -    -    -      1.5 ms\n\
        a:1     set   0      -       -    -    -      -\n";
    assert_eq!(table(&LATENCY, &sheets), wanted);
}

#[test]
fn keys_are_texts_and_numbers_are_numbers() {
    let sheets = [sheet(&[("seconds", "60"), ("1:key", "12"), ("1:percent", "3.50"), ("1:reads", "7")])];
    let value: Value = serde_json::from_str(&json(&HOT_KEYS, &sheets)).unwrap();
    let wanted = serde_json::json!([{"server": "a:1", "seconds": 60,
        "rows": [{"rank": 1, "key": "12", "percent": 3.5, "reads": 7}]}]);
    assert_eq!(value, wanted);
}

#[test]
fn slabs_and_items_are_one_row() {
    let sheets = [sheet(&[("1:chunk_size", "96"), ("items:1:age", "7200"), ("active_slabs", "1")])];
    let text = table(&SLABS, &sheets);
    assert!(text.lines().count() == 2 && text.contains("96 B") && text.contains("2 h"), "{text}");
}
