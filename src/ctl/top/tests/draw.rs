//! Screens of several sizes.

use super::*;
use crate::ctl::top::latency::TopKind;
use crate::ctl::top::rates::{TopHotKey, TopLag, TopSlab};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn hot_key(rank: u64, key: &str, number: Option<u64>) -> TopHotKey {
    let known = number.map(|number| number as f64);
    TopHotKey { rank, key: key.into(), percent: known, reads: number, writes: number, per_second: known }
}

fn server(name: &str, now: Instant) -> TopRow {
    TopRow {
        heard: Some(now),
        role: Some("primary".into()),
        operations: Some(12_345.0),
        gets: Some(12_000.0),
        sets: Some(300.4),
        others: Some(44.6),
        hit_share: Some(0.981),
        p50: Some(8.2),
        p99: Some(81.9),
        bytes: Some(600 << 20),
        limit: Some(1 << 30),
        items: Some(1_234_567),
        evictions: Some(0.0),
        connections: Some(42),
        uptime: Some(86_400 * 3 + 7200),
        lag: Some(TopLag::Behind(3)),
        kinds: Some(vec![
            TopKind { name: "get".into(), per_second: Some(12_000.0), quantiles: Some([8.2, 20.0, 81.9, 1500.0]) },
            TopKind { name: "set".into(), per_second: Some(0.0), quantiles: None },
        ]),
        hot_keys: Some(vec![hot_key(1, "user:17", Some(31)), hot_key(2, "a\u{1b}[2Jb\u{7}", None)]),
        slabs: Some(vec![TopSlab {
            class: 1,
            chunk: Some(96),
            pages: Some(600),
            used: Some(1_234_567),
            free: Some(3),
            evicted: Some(0),
            age: Some(7261),
        }]),
        ..TopRow::new(name)
    }
}

fn rows(now: Instant) -> Vec<TopRow> {
    let memcached = TopRow {
        role: None,
        lag: None,
        p50: None,
        p99: None,
        kinds: None,
        hot_keys: None,
        operations: Some(99_999.0),
        ..server("10.0.0.2:11211", now)
    };
    let away = TopRow { trouble: Some("Connection refused\u{1b}]0;x".into()), ..TopRow::new("10.0.0.3:11211") };
    vec![server("10.0.0.1:11211", now), memcached, away]
}

fn screen(width: u16, height: u16, rows: &[TopRow], choice: &TopChoice, now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let view = TopView { rows, choice, interval: Duration::from_secs(1), now };
    terminal.draw(|frame| draw(frame, &view)).unwrap();
    let lines = terminal.backend().buffer().content().chunks(usize::from(width.max(1)));
    let line = |cells: &[ratatui::buffer::Cell]| {
        cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n"
    };
    lines.map(line).collect()
}

#[test]
fn every_size_is_drawn() {
    let now = Instant::now();
    let rows = rows(now);
    let shown = |width, height| screen(width, height, &rows, &TopChoice::default(), now);
    for (width, height) in [(100, 30), (60, 15), (80, 24), (40, 10), (200, 60)] {
        let text = shown(width, height);
        println!("{width}x{height}\n{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), usize::from(height));
        assert!(lines[0].starts_with("twincachectl top   3 servers, 1 away"), "{text}");
        assert!(lines[1].starts_with("SERVER ") && lines[1].contains("OPS/S"), "{text}");
        assert!(lines[2].starts_with("10.0.0.1:11211 ") && lines[2].contains(" 12.3k"), "{text}");
        assert!(lines[4].contains("away: Connection refused"), "{text}");
        assert!(lines[lines.len() - 1].starts_with("q quit"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
    assert!(shown(200, 60).contains("sync") || shown(200, 60).contains("3.00ms"), "the last column is there");
    for part in ["hot keys of", "latency of", "slab classes of", "user:17", "1.50ms", "2h01m", r"a\u{1b}[2Jb\u{7}"] {
        assert!(shown(200, 60).contains(part), "{part}");
    }
    assert!(shown(100, 30).lines().nth(2).unwrap().ends_with(" 3.00ms"), "the lag is there before other columns");
    assert!(shown(80, 24).contains("user:17") && !shown(40, 8).contains("user:17"));
    (0..30).for_each(|width| (0..12).for_each(|height| drop(shown(width, height))));
}

#[test]
fn what_is_not_known_is_a_dash() {
    let now = Instant::now();
    let choice = TopChoice { server: 1, pane: TopPane::HotKeys, ..TopChoice::default() };
    let text = screen(200, 20, &rows(now), &choice, now);
    let memcached = text.lines().nth(3).unwrap();
    assert!(memcached.contains("100k") && memcached.contains("  -  "), "{memcached}");
    assert!(text.contains("the server does not tell"), "{text}");
}

#[test]
fn what_is_off_is_said() {
    let now = Instant::now();
    let off = TopRow { kinds: Some(vec![]), hot_keys: Some(vec![]), are_hot_keys_off: true, ..server("a:1", now) };
    let text = screen(200, 20, &[off], &TopChoice::default(), now);
    assert!(text.contains("off on this server: -o no_hotkeys"), "{text}");
    assert!(text.contains("off on this server: -o no_latency"), "{text}");
}

#[test]
fn the_order_is_by_a_column() {
    let now = Instant::now();
    let rows = rows(now);
    let by = |head: &str, is_reversed| {
        let sort = COLUMNS.iter().position(|column| column.head == head);
        let text = screen(120, 20, &rows, &TopChoice { sort, is_reversed, ..TopChoice::default() }, now);
        text.lines().skip(2).take(3).map(|line| line[..14].to_owned()).collect::<Vec<String>>()
    };
    let names = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"];
    assert_eq!(by("OPS/S", false), [names[1], names[0], names[2]]);
    assert_eq!(by("OPS/S", true), [names[0], names[1], names[2]], "what is not known stays last");
    assert_eq!(by("SERVER", true), [names[2], names[1], names[0]]);
    assert_eq!(by("none", true), [names[2], names[1], names[0]]);
}

#[test]
fn the_chosen_server_is_on_the_screen() {
    let now = Instant::now();
    let rows: Vec<TopRow> = (0..100).map(|at| server(&format!("cache-{at}:11211"), now)).collect();
    for (at, height) in [(99, 12), (50, 24), (0, 3), (99, 4)] {
        let text = screen(80, height, &rows, &TopChoice { server: at, ..TopChoice::default() }, now);
        assert!(text.contains(&format!("cache-{at}:11211")), "{height}: {text}");
    }
}

#[test]
fn silence_is_told() {
    let now = Instant::now();
    let rows = [server("a:1", now), TopRow::new("b:1")];
    let shown = |now, choice: &TopChoice| screen(80, 10, &rows, choice, now);
    let later = now + Duration::from_secs(75);
    let text = shown(later, &TopChoice::default());
    assert!(text.contains("says nothing for 1m15s") && text.contains("b:1     connecting"), "{text}");
    let text = shown(later, &TopChoice { is_paused: true, ..TopChoice::default() });
    assert!(text.contains("PAUSED") && !text.contains("says nothing"), "{text}");
}

#[test]
fn long_names_and_no_servers() {
    let now = Instant::now();
    let long = "x".repeat(300);
    let text = screen(80, 24, &[server(&long, now)], &TopChoice::default(), now);
    assert!(text.contains(&format!("{}~  ", "x".repeat(29))) && text.contains("12.3k"), "{text}");
    screen(80, 24, &[], &TopChoice::default(), now);
}
