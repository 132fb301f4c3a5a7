//! The load generator as a program: `compare load`, against any server.
//!
//! The result is one JSON line on stdout.
//!
//! Not here: the load itself (`load`).

use crate::draw::{Items, Sizes};
use crate::load::{Feed, Generator, Load, Protocol, Tally, Until};
use getopts::{Matches, Options};
use serde_json::json;
use std::net::{SocketAddr, ToSocketAddrs};

/// Runs one load: see [`options`].
pub fn main(arguments: &[String]) -> Result<(), String> {
    let matches = options().parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        println!("{}", options().usage("Usage: compare load [options]"));
        return Ok(());
    }
    let mut generator = Generator::connect(load(&matches)?)?;
    if !matches.opt_present("no-fill") {
        generator.fill()?;
    }
    generator.run(Until::Seconds(number(&matches, "warmup", 1.0)?))?;
    let before = cpu(&matches)?;
    let tally = generator.run(Until::Seconds(number(&matches, "seconds", 5.0)?))?;
    println!("{}", report(&tally, cpu(&matches)?.zip(before).map(|(after, before)| after - before)));
    Ok(())
}

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("", "address", "server (127.0.0.1:11211)", "HOST:PORT");
    options.optopt("", "connections", "connections (50)", "N");
    options.optopt("", "pipeline", "requests in a batch (1)", "N");
    options.optopt("", "multiget", "keys per get (1)", "N");
    options.optopt("", "get", "share of gets, percent (95)", "P");
    options.optopt("", "keys", "number of keys (1000000)", "N");
    options.optopt("", "key-length", "bytes of a key, one number or MIN-MAX (20)", "N");
    options.optopt("", "hot", "so many of a hundred keys are the first one (0)", "N");
    options.optopt("", "zipf", "draw keys by Zipf's law with this exponent (evenly)", "S");
    options.optopt("", "values", "bytes of a value, one number, MIN-MAX or spread (100)", "N");
    options.optopt("", "protocol", "text, meta or binary (text)", "P");
    options.optopt("", "rate", "open loop: requests a second in all (closed loop)", "N");
    options.optopt("", "feed", "with --rate: sets of new items a second beside it", "N");
    options.optopt("", "warmup", "seconds before the measurement (1)", "S");
    options.optopt("", "seconds", "seconds of the measurement (5)", "S");
    options.optopt("", "pid", "the server's process id, to read its CPU time", "PID");
    options.optopt("", "seed", "seed of the random numbers (1)", "N");
    options.optflag("", "ttl", "one item in ten lives 5 to 60 seconds");
    options.optflag("", "set-on-miss", "set what a get does not find");
    options.optflag("", "naps", "with --rate: sleep between requests, do not spin");
    options.optflag("", "no-fill", "do not write every key first");
    options.optflag("h", "help", "this text");
    options
}

fn load(matches: &Matches) -> Result<Load, String> {
    let items = Items {
        first: 0,
        count: number(matches, "keys", 1_000_000u64)?.max(1),
        key_length: pair(&text(matches, "key-length", "20"))?,
        sizes: sizes(&text(matches, "values", "100"))?,
        mortal: matches.opt_present("ttl"),
    };
    let new = Items { first: items.count, count: u64::MAX >> 1, ..items };
    let feed = matches.opt_present("feed");
    Ok(Load {
        address: address(&text(matches, "address", "127.0.0.1:11211"))?,
        protocol: protocol(&text(matches, "protocol", "text"))?,
        connections: number(matches, "connections", 50usize)?.max(1),
        pipeline: number(matches, "pipeline", 1usize)?.max(1),
        multiget: number(matches, "multiget", 1usize)?.max(1),
        get_percent: number(matches, "get", 95)?,
        items,
        zipf: matches.opt_present("zipf").then(|| number(matches, "zipf", 0.9)).transpose()?,
        hot: number(matches, "hot", 0)?,
        rate: matches.opt_present("rate").then(|| number(matches, "rate", 0.0)).transpose()?,
        naps: matches.opt_present("naps"),
        set_on_miss: matches.opt_present("set-on-miss"),
        feed: if feed { Some(Feed { items: new, rate: number(matches, "feed", 0.0)?, batch: 16 }) } else { None },
        seed: number(matches, "seed", 1)?,
    })
}

fn text(matches: &Matches, name: &str, default: &str) -> String {
    matches.opt_str(name).unwrap_or_else(|| default.to_string())
}

fn number<T: std::str::FromStr>(matches: &Matches, name: &str, default: T) -> Result<T, String> {
    let wrong = || format!("--{name}: {:?} is not such a number", matches.opt_str(name).unwrap_or_default());
    matches.opt_get(name).map_err(|_| wrong()).map(|found| found.unwrap_or(default))
}

fn pair(text: &str) -> Result<(usize, usize), String> {
    let parse = |part: &str| part.parse().map_err(|_| format!("{text:?} is neither N nor MIN-MAX"));
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let (least, most) = (parse(least)?, parse(most)?);
    if least <= most { Ok((least, most)) } else { Err(format!("{text:?} ends before it begins")) }
}

fn sizes(text: &str) -> Result<Sizes, String> {
    if text == "spread" {
        return Ok(Sizes::Spread);
    }
    let (least, most) = pair(text)?;
    Ok(if least == most { Sizes::Fixed(least) } else { Sizes::Range(least, most) })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("--address: cannot resolve {text:?}"))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "text" => Ok(Protocol::Text),
        "meta" => Ok(Protocol::Meta),
        "binary" => Ok(Protocol::Binary),
        _ => Err(format!("--protocol: {text:?} is none of text, meta, binary")),
    }
}

fn cpu(matches: &Matches) -> Result<Option<u64>, String> {
    let pid: Option<u32> = matches.opt_get("pid").map_err(|_| "--pid: not a number")?;
    Ok(pid.map(crate::server::cpu_ns))
}

fn report(tally: &Tally, cpu_ns: Option<u64>) -> serde_json::Value {
    json!({
        "requests": tally.requests,
        "seconds": tally.seconds,
        "rate": tally.rate().round(),
        "hits": tally.hits,
        "misses": tally.misses,
        "refused": tally.refused,
        "cpu_ns": cpu_ns.map(|ns| ns as f64 / tally.requests.max(1) as f64),
        "p50_us": tally.quantile_us(0.5),
        "p99_us": tally.quantile_us(0.99),
        "p999_us": tally.quantile_us(0.999),
        "max_us": tally.quantile_us(1.0),
        "late_p99_us": tally.late_us(0.99),
    })
}
