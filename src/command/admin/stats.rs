//! `stats` and its sub-commands, for text and binary: names, order and meaning are memcached's, letter for
//! letter, because scripts and dashboards read them.
//!
//! A bracket in the comments of a list is the condition under which memcached prints the names after it.
//!
//! Not here: how an argument is recognised and how a statistic is framed (`admin.rs` and `binary.rs`).

use super::insight;
use super::sheet::{Seconds, Sheet};
use crate::VERSION;
use crate::command::Shared;
use crate::journal::{ConsumerStatus, ReaderState};
use crate::protocol::duty_line::RoleName;
use crate::stats::{Totals, process_times};
use crate::store::{ClassCounters, CopyStatus, Duty, Holder, RoleView, Store, StoreStats, Tuning};
use crate::tls::ServerTls;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What memcached keeps in reserve of file descriptors for each worker. Only reported.
const RESERVED_FDS_PER_THREAD: usize = 5;

/// Rows that are called like the fields they show.
macro_rules! fields {
    ($of:ident: $($name:ident),+) => {
        [$((stringify!($name), u64::from($of.$name))),+]
    };
}

/// Hands every statistic of `stats <argument>` to `emit`; false when there is no such argument. `None` is plain
/// `stats`. For the arguments that both protocols know: none, `settings`, `items`, `slabs`, `sizes`, `reset`,
/// and `twincache`, `latency`, `latency buckets` and `hotkeys`, which memcached does not have.
pub fn each(argument: Option<&[u8]>, shared: &Shared, emit: &mut dyn FnMut(&str, &str)) -> bool {
    let mut sheet = Sheet::new(emit);
    match argument {
        None => general(shared, &mut sheet),
        Some(b"settings") => settings(shared, &mut sheet),
        Some(b"items") => items(shared, &mut sheet),
        Some(b"slabs") => slabs(shared, &mut sheet),
        Some(b"sizes") => sizes(shared, &mut sheet),
        Some(b"twincache") => {
            durations(shared, &mut sheet);
            ghost(shared, &mut sheet);
            shared.refresh.iter().for_each(|refresh| sheet.put("refresh_ahead_misses", refresh.misses()));
        }
        Some(b"reset") => reset(shared),
        Some(b"replication") => replication_rows(shared, Instant::now(), &mut sheet),
        Some(argument) => return insight::each(argument, shared, &mut sheet),
    }
    true
}

/// `stats replication`, which the control socket tells as well.
pub fn replication(shared: &Shared, now: Instant, emit: &mut dyn FnMut(&str, &str)) {
    replication_rows(shared, now, &mut Sheet::new(emit));
}

/// The role, and its epoch. Who is fed without being told a role is a standby, of no epoch.
pub fn role(store: &Store) -> (RoleName, u64) {
    let RoleView { duty, epoch, is_fed } = store.role_view();
    match duty {
        Duty::Standalone if is_fed => (RoleName::Standby, epoch),
        Duty::Standalone => (RoleName::Standalone, epoch),
        Duty::Waiting => (RoleName::Waiting, epoch),
        Duty::Standby { epoch } => (RoleName::Standby, epoch),
        Duty::Candidate { epoch } => (RoleName::Candidate, epoch),
        Duty::Primary { epoch, .. } => (RoleName::Primary, epoch),
    }
}

fn replication_rows(shared: &Shared, now: Instant, sheet: &mut Sheet<'_>) {
    let status = shared.store.journal().status(now);
    let totals = shared.stats.totals();
    sheet.put("run_id", format_args!("{:016x}", status.run_id));
    let (role, epoch) = role(&shared.store);
    sheet.put("role", role.name());
    sheet.put("epoch", epoch);
    sheet.put("items", shared.store.items());
    match shared.store.upstream(now) {
        None => sheet.put("upstream", "none"),
        Some(run_id) => sheet.put("upstream", format_args!("{run_id:016x}")),
    }
    copy_rows(&shared.store.copied().status(), sheet);
    sheet.all([
        ("journal_on", status.is_on.into()),
        ("lsn", status.lsn),
        ("journal_first_lsn", status.first),
        ("journal_bytes", status.bytes),
        ("journal_limit", status.capacity),
        ("walks_started", status.full_syncs_started),
        ("walks_finished", status.full_syncs_finished),
        ("replicas_ack", status.required.into()),
        ("replicas_missing", status.missing.into()),
        ("degraded", shared.store.journal().acks().is_degraded().into()),
        ("replies_waiting", shared.stats.replies_waiting.load(Ordering::Relaxed)),
        ("replies_held", totals.replies_held),
        ("replies_timed_out", totals.replies_timed_out),
        ("replies_refused", totals.replies_refused),
        ("consumers", status.consumers.len() as u64),
    ]);
    for (number, consumer) in status.consumers.iter().enumerate() {
        consumer_rows(number, consumer, sheet);
    }
}

/// What a server that was fed knows of its copy.
fn copy_rows(status: &CopyStatus, sheet: &mut Sheet<'_>) {
    sheet.put("copy", status.state.name());
    let Some(silent) = status.silent else { return };
    sheet.put("copy_from", &status.address);
    sheet.put("copy_from_run", format_args!("{:016x}", status.run_id));
    sheet.all([
        ("copy_lsn", status.lsn),
        ("copy_silent_ms", silent.as_millis() as u64),
        ("copy_items", status.progress.items),
        ("copy_items_expected", status.progress.expected),
        ("copy_percent", status.progress.percent()),
        ("copy_bytes", status.progress.bytes),
        ("copy_syncs", status.syncs),
        ("copy_syncs_ended", status.syncs_ended),
    ]);
}

fn consumer_rows(number: usize, consumer: &ConsumerStatus, sheet: &mut Sheet<'_>) {
    let state = match consumer.state {
        ReaderState::Syncing => "walking",
        ReaderState::Streaming => "streaming",
        ReaderState::Lagged => "overtaken",
    };
    sheet.row(format_args!("{number}:name"), &consumer.name);
    sheet.row(format_args!("{number}:identity"), &consumer.identity);
    sheet.row(format_args!("{number}:state"), state);
    let rows = [
        ("read_lsn", consumer.read),
        ("acked_lsn", consumer.acked),
        ("complete_lsn", consumer.complete),
        ("lag_lsn", consumer.lag),
        ("lag_bytes", consumer.lag_bytes),
        ("lag_ms", consumer.lag_ms),
        ("ranges_to_walk", consumer.dirty),
        ("ranges_refused", consumer.refused),
        ("walks_started", consumer.counts.full_syncs_started),
        ("walks_finished", consumer.counts.full_syncs_finished),
        ("overtaken", consumer.counts.lagged),
        ("changes_lost", consumer.counts.lost),
        ("refusals", consumer.counts.refusals),
    ];
    for (name, value) in rows {
        sheet.row(format_args!("{number}:{name}"), value);
    }
}

fn general(shared: &Shared, sheet: &mut Sheet<'_>) {
    let config = &shared.config;
    let totals = shared.stats.totals();
    let store = shared.store.stats();
    process(shared, sheet);
    connections(shared, sheet);
    buffers(shared, &totals, sheet);
    commands(&totals, sheet);
    if config.idle_timeout > 0 {
        sheet.put("idle_kicks", totals.idle_kicks);
    }
    traffic(shared, &totals, &store, sheet);
    background(shared, &store, sheet);
    watching(shared, &store, sheet);
    contents(shared, &store, sheet);
}

fn process(shared: &Shared, sheet: &mut Sheet<'_>) {
    let clock = &shared.clock;
    let (user, system) = process_times();
    sheet.put("pid", std::process::id());
    sheet.put("uptime", clock.uptime());
    sheet.put("time", clock.unix(clock.now()));
    sheet.put("version", VERSION);
    // The event library: scripts read the name, so it says which one there is.
    sheet.put("libevent", "mio-1");
    sheet.put("pointer_size", usize::BITS);
    sheet.put("rusage_user", Seconds(user));
    sheet.put("rusage_system", Seconds(system));
}

fn connections(shared: &Shared, sheet: &mut Sheet<'_>) {
    let config = &shared.config;
    let stats = &shared.stats;
    sheet.put("max_connections", config.max_conns);
    sheet.put("curr_connections", stats.curr_conns.load(Ordering::Relaxed).saturating_sub(1));
    sheet.put("total_connections", stats.total_conns.load(Ordering::Relaxed));
    if config.maxconns_fast {
        sheet.put("rejected_connections", stats.rejected_conns.load(Ordering::Relaxed));
    }
    sheet.put("connection_structures", stats.conn_structs.load(Ordering::Relaxed));
}

/// Read buffers of a worker.
const READ_BUFFERS: u64 = 2;

/// A reply is written straight into its worker's output, and is an object of its own only when its client does not read
/// it; one is on its way now. Read buffers are two per worker, shared by all its connections, of which this command's
/// uses one; a connection has one of its own for what is not a whole request yet.
fn buffers(shared: &Shared, totals: &Totals, sheet: &mut Sheet<'_>) {
    let (threads, stats) = (shared.config.threads, &shared.stats);
    let [own, input, inputs, output, outputs] =
        [&stats.read_buf_bytes, &stats.held_input, &stats.held_inputs, &stats.held_output, &stats.held_outputs]
            .map(|gauge| gauge.load(Ordering::Relaxed));
    let buffers = READ_BUFFERS * threads as u64;
    sheet.all([
        ("response_obj_oom", totals.response_obj_oom),
        ("response_obj_count", 1 + outputs),
        ("response_obj_bytes", output),
        ("read_buf_count", buffers + inputs),
        ("read_buf_bytes", own + input),
        ("read_buf_bytes_free", own - own / buffers.max(1)),
        ("read_buf_oom", totals.read_buf_oom),
        ("reserved_fds", (RESERVED_FDS_PER_THREAD * threads) as u64),
    ]);
}

fn commands(totals: &Totals, sheet: &mut Sheet<'_>) {
    sheet.all([
        ("cmd_get", totals.get_cmds),
        ("cmd_set", totals.set_cmds),
        ("cmd_flush", totals.flush_cmds),
        ("cmd_touch", totals.touch_cmds),
        ("cmd_meta", totals.meta_cmds),
    ]);
    sheet.all(fields!(totals: get_hits, get_misses, get_expired, get_flushed, delete_misses, delete_hits));
    sheet.all(fields!(totals: incr_misses, incr_hits, decr_misses, decr_hits, cas_misses, cas_hits, cas_badval));
    sheet.all(fields!(totals: touch_hits, touch_misses, store_too_large, store_no_memory, auth_cmds, auth_errors));
}

fn traffic(shared: &Shared, totals: &Totals, store: &StoreStats, sheet: &mut Sheet<'_>) {
    let stats = &shared.stats;
    sheet.all(fields!(totals: bytes_read, bytes_written));
    sheet.all([
        ("limit_maxbytes", store.memory_limit),
        ("accepting_conns", u64::from(!stats.not_accepting.load(Ordering::Relaxed))),
        ("listen_disabled_num", stats.listen_disabled.load(Ordering::Relaxed)),
        ("time_in_listen_disabled_us", stats.listen_disabled_us.load(Ordering::Relaxed)),
        ("threads", shared.config.threads as u64),
    ]);
    sheet.all(fields!(totals: conn_yields));
    sheet.all(fields!(store: hash_power_level, hash_bytes, hash_is_expanding));
}

fn background(shared: &Shared, store: &StoreStats, sheet: &mut Sheet<'_>) {
    let config = &shared.config.store;
    if config.slab_reassign {
        sheet.all(fields!(store: slab_reassign_rescues, slab_reassign_chunk_rescues, slab_reassign_inline_reclaim));
        sheet.all(fields!(store: slab_reassign_busy_items, slab_reassign_busy_deletes, slab_reassign_busy_nomem));
        sheet.put("slab_reassign_last_busy_status", store.slab_reassign_last_busy_status);
        sheet.all(fields!(store: slab_reassign_running, slabs_moved));
    }
    if shared.store.crawler_enabled() {
        sheet.all(fields!(store: lru_crawler_running, lru_crawler_starts));
    }
    if config.maintainer {
        sheet.all(fields!(store: lru_maintainer_juggles));
    }
}

fn watching(shared: &Shared, store: &StoreStats, sheet: &mut Sheet<'_>) {
    let watch = shared.watch.counts();
    sheet.all([
        ("malloc_fails", store.malloc_fails),
        ("log_worker_dropped", watch.worker_dropped),
        ("log_worker_written", watch.worker_written),
        ("log_watcher_skipped", watch.watcher_skipped),
        ("log_watcher_sent", watch.watcher_sent),
        ("log_watchers", watch.watchers),
    ]);
    if let Some(tls) = &shared.tls {
        encryption(tls, shared, sheet);
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    sheet.all([
        ("unexpected_napi_ids", of(&shared.stats.unexpected_napi_ids)),
        ("round_robin_fallback", of(&shared.stats.round_robin_fallback)),
    ]);
}

fn encryption(tls: &ServerTls, shared: &Shared, sheet: &mut Sheet<'_>) {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    if shared.config.tls.session_cache {
        sheet.put("ssl_new_sessions", of(&tls.new_sessions));
    }
    sheet.put("ssl_handshake_errors", of(&tls.handshake_errors));
    sheet.put("ssl_proto_errors", of(&tls.protocol_errors));
    sheet.put("time_since_server_cert_refresh", shared.clock.now().saturating_sub(tls.refreshed()));
}

fn contents(shared: &Shared, store: &StoreStats, sheet: &mut Sheet<'_>) {
    let maintainer = shared.config.store.maintainer;
    let mut all = ClassCounters::default();
    shared.store.class_stats().iter().for_each(|class| all.add(&class.counters));
    sheet.all(fields!(store: bytes, curr_items, total_items, slab_global_page_pool));
    sheet.all(fields!(all: expired_unfetched, evicted_unfetched));
    if maintainer {
        sheet.all(fields!(all: evicted_active));
    }
    sheet.put("evictions", all.evicted);
    sheet.all(fields!(all: reclaimed, crawler_reclaimed, crawler_items_checked, lrutail_reflocked));
    if maintainer {
        sheet.all(fields!(all: moves_to_cold, moves_to_warm, moves_within_lru, direct_reclaims));
        sheet.put("lru_bumps_dropped", 0);
    }
}

/// The settings as they are now: some may have changed since the start.
fn settings(shared: &Shared, sheet: &mut Sheet<'_>) {
    let store = &shared.store;
    let stats = store.stats();
    let mut now = shared.config.clone();
    now.verbosity = verbosity();
    now.detail_enabled = shared.stats.prefixes.enabled();
    now.store.memory_limit = stats.memory_limit;
    now.store.crawler = store.crawler_enabled();
    now.store.tuning = Tuning::clone(&store.tuning());
    for (name, value) in now.stats() {
        sheet.put(name, value);
        if name == "verbosity" {
            // No setting, but memcached prints it here.
            sheet.put("oldest", stats.oldest_live);
        }
    }
}

fn items(shared: &Shared, sheet: &mut Sheet<'_>) {
    let maintainer = shared.config.store.maintainer;
    let temp = shared.store.tuning().temporary_ttl.is_some();
    for class in shared.store.class_stats().iter().filter(|class| class.number > 0) {
        let counters = &class.counters;
        let mut put = |rows: &[(&str, u64)]| sheet.class("items:", class.class, rows);
        put(&fields!(class: number));
        if maintainer {
            put(&fields!(class: number_hot, number_warm, number_cold));
            if temp {
                put(&fields!(class: number_temp));
            }
            put(&fields!(class: age_hot, age_warm));
        }
        put(&fields!(class: age, mem_requested));
        put(&fields!(counters: evicted, evicted_nonzero, evicted_time, outofmemory));
        put(&[("tailrepairs", 0)]);
        put(&fields!(counters: reclaimed, expired_unfetched, evicted_unfetched));
        if maintainer {
            put(&fields!(counters: evicted_active));
        }
        put(&fields!(counters: crawler_reclaimed, crawler_items_checked, lrutail_reflocked));
        if maintainer {
            put(&fields!(counters: moves_to_cold, moves_to_warm, moves_within_lru, direct_reclaims));
            let [hot, warm, cold, temp] = counters.hits;
            put(&[("hits_to_hot", hot), ("hits_to_warm", warm), ("hits_to_cold", cold), ("hits_to_temp", temp)]);
        }
    }
}

fn slabs(shared: &Shared, sheet: &mut Sheet<'_>) {
    let classes = shared.store.class_stats();
    let active = || classes.iter().filter(|class| class.total_pages > 0);
    for class in active() {
        let counters = &class.counters;
        let mut put = |rows: &[(&str, u64)]| sheet.class("", class.class, rows);
        put(&fields!(class: chunk_size, chunks_per_page, total_pages));
        put(&[("total_chunks", class.total_pages * class.chunks_per_page)]);
        put(&fields!(class: used_chunks, free_chunks));
        put(&[("free_chunks_end", 0), ("get_hits", counters.hits.iter().sum())]);
        put(&fields!(counters: cmd_set, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits));
    }
    sheet.put("active_slabs", active().count());
    sheet.put("total_malloced", shared.store.stats().total_malloced);
}

fn sizes(shared: &Shared, sheet: &mut Sheet<'_>) {
    let Some(sizes) = shared.store.sizes() else {
        return sheet.put("sizes_status", "disabled");
    };
    for (size, count) in sizes {
        sheet.row(format_args!("{size}"), count);
    }
}

/// How long anything has kept clients waiting here, in microseconds. See `stats::event_loop` and `store::lock_time`.
fn durations(shared: &Shared, sheet: &mut Sheet<'_>) {
    let loops = shared.stats.event_loops.stats();
    let holds = shared.store.holds();
    // Read first because it is noted last, so that it is never above the other.
    let longest_cpu = holds.longest_cpu();
    let by =
        [Holder::Maintainer, Holder::Crawler, Holder::Mover, Holder::Ahead, Holder::Walk].map(|by| holds.longest(by));
    let us = |duration: Duration| duration.as_micros() as u64;
    sheet.all([
        ("loop_turns_served", loops.served),
        ("loop_turn_p50_us", us(loops.turns.p50)),
        ("loop_turn_p99_us", us(loops.turns.p99)),
        ("loop_turn_p999_us", us(loops.turns.p999)),
        ("inside_p50_us", us(loops.in_server.p50)),
        ("inside_p99_us", us(loops.in_server.p99)),
        ("inside_p999_us", us(loops.in_server.p999)),
        ("longest_loop_turn_us", us(loops.longest)),
        ("longest_loop_turn_cpu_us", us(loops.longest_cpu)),
        ("longest_lock_hold_us", us(by.into_iter().max().unwrap_or_default())),
        ("longest_lock_hold_cpu_us", us(longest_cpu)),
        ("longest_lock_hold_maintainer_us", us(by[0])),
        ("longest_lock_hold_crawler_us", us(by[1])),
        ("longest_lock_hold_mover_us", us(by[2])),
        ("longest_lock_hold_ahead_us", us(by[3])),
        ("longest_lock_hold_walk_us", us(by[4])),
    ]);
}

/// Keys that were evicted and came back, and what is kept to know them. See `store::shard::ghost`.
fn ghost(shared: &Shared, sheet: &mut Sheet<'_>) {
    let store = shared.store.stats();
    sheet.all(fields!(store: ghost_hits, ghost_bytes));
}

fn reset(shared: &Shared) {
    shared.stats.reset();
    shared.store.reset_stats();
    shared.watch.reset();
    shared.tls.iter().for_each(|tls| tls.reset_counts());
    shared.refresh.iter().for_each(|refresh| refresh.reset());
}

/// The count of `-v` that goes with the log level of now.
fn verbosity() -> u8 {
    (0..3).find(|&v| crate::config::log_level(v) >= log::max_level()).unwrap_or(3)
}
