//! Everything that can be wrong in a config: exit code 78, the option, its value and the cure.

use super::desk::{Desk, SECRET};

const CONFIG: i32 = 78;

/// A config of these lines and a feed that is all right.
fn with_feed(desk: &Desk, text: &str) {
    desk.write("tickmint.toml", &format!("{text}\n[[feed.keys]]\nkey_file = {:?}\nsymbols = [\"A\"]\n", desk.path("key")));
}

#[test]
fn what_is_wrong_names_the_option_the_value_and_the_cure() {
    let desk = Desk::new();
    for (text, parts) in [
        // Options and sections that there are not.
        ("[spool]\nmax_byte = \"1 GiB\"", &["line 2", "`spool.max_byte`", "did you mean `spool.max_bytes`?"][..]),
        ("[spol]\ndir = \"x\"", &["line 1", "`spol`", "did you mean `[spool]`?"]),
        ("data-dir = \"x\"", &["line 1", "`data-dir`", "did you mean `data_dir`?"]),
        // Types.
        ("[telemetry]\njson = \"yes\"", &["line 2", "`telemetry.json`", "`\"yes\"`", "must be true or false without quotes"]),
        ("[feed]\nsymbols_per_key = \"50\"", &["line 2", "`feed.symbols_per_key`", "`\"50\"`", "must be"]),
        ("spool = 5", &["line 1", "`spool` is a section", "write `[spool]`"]),
        // Units.
        ("[feed]\nwatchdog = 150", &["line 2", "`feed.watchdog` is `150`", "lacks a unit", "`150s`"]),
        ("[feed]\nwatchdog = \"5 parsecs\"", &["line 2", "`5 parsecs`", "is not a duration", "`150s`"]),
        ("[spool]\nmax_bytes = \"8\"", &["line 2", "`spool.max_bytes` is `8`", "lacks a unit", "`8 GiB`"]),
        // Ranges.
        ("[bronze]\nzstd_level = 99", &["line 2", "`bronze.zstd_level` is `99`", "from 1", "to 19"]),
        ("[spool]\ngroup = \"5s\"", &["line 2", "`spool.group` is `5s`", "must be from 0ms to 1s"]),
        ("[telemetry]\nsample = 2.0", &["line 2", "`telemetry.sample` is `2`", "from 0 to 1"]),
        ("[http]\nlisten = \"127.0.0.1:99999\"", &["line 2", "`http.listen` is `127.0.0.1:99999`", "`127.0.0.1:8080`"]),
        (
            "[spool]\nmax_bytes = \"1 GiB\"\nreserve_bytes = \"2 GiB\"",
            &["line 3", "`spool.reserve_bytes` is `2 GiB`", "below `spool.max_bytes` (1 GiB)", "lower it or raise the other"],
        ),
        // Forms.
        ("[feed]\nurl = \"https://finnhub.io\"", &["line 2", "`feed.url` is `https://finnhub.io`", "`wss://ws.finnhub.io`"]),
        ("[bronze]\nstore = \"gs://x\"", &["line 2", "`bronze.store` is `gs://x`", "`s3://bucket/prefix`"]),
        ("[bronze]\nstore = \"s3://X\"", &["line 2", "`bronze.store` is `s3://X`", "names no bucket"]),
        ("[warehouse]\nsale_conditions = \"mine\"", &["line 2", "`mine`", "must be one of `cts_utp`, `lean`"]),
        ("[http]\nlisten = \"0.0.0.0:8080\"", &["line 2", "`0.0.0.0:8080`", "set `http.token_file` or `http.token_env`"]),
        // A cluster.
        ("roles = [\"feed\"]", &["line 1", "`roles` is `feed`", "there is no `[kafka]`", "remove `roles`"]),
        ("[kafka]", &["`kafka.brokers` is empty", "`brokers = [\"kafka-1:9092\""]),
        ("[kafka]\nbrokers = [\"k:1\"]\nacks = 1", &["line 3", "`kafka.acks`"]),
        ("[kafka]\nbrokers = [\"k:1\"]\n[kafka.properties]\nacks = 1", &["line 4", "`kafka.properties.acks` must stay `all`"]),
        // Not TOML.
        ("[http]\nlisten = \"127.0.0.1:8080", &["line 2", "not TOML"]),
        ("data_dir = \"a\"\ndata_dir = \"b\"", &["line 2", "not TOML"]),
    ] {
        with_feed(&desk, text);
        desk.run("check --config").says(CONFIG, &[parts, &["tickmint.toml"]].concat());
    }
}

#[test]
fn a_secret_that_is_not_there_or_given_twice_is_told_and_none_is_shown() {
    let desk = Desk::new();
    let (empty, two) = (desk.write("empty", "\n"), desk.write("two", &format!("{SECRET} {SECRET}")));
    let folder = desk.dir.path();
    let key = desk.path("key");
    for (lines, parts) in [
        (
            format!("key_file = {:?}", desk.path("absent")),
            &["`key_file`", "no. 1", "absent", "No such file", "write the secret there"][..],
        ),
        (format!("key_file = {empty:?}"), &["`key_file`", "is empty", "put the secret there"]),
        (format!("key_file = {folder:?}"), &["`key_file`", "cannot be read (Is a directory"]),
        (format!("key_file = {two:?}"), &["`key_file`", "holds more than a secret"]),
        (format!("key_file = {key:?}\nkey_env = \"FINNHUB_KEY\""), &["`key_file`", "`key_env` too", "remove one"]),
        ("key_env = \"NOBODY_SETS_THIS\"".into(), &["`key_env`", "`NOBODY_SETS_THIS`", "not set", "use `key_file`"]),
        (format!("key_env = \"{SECRET}\""), &["`key_env`", "must name an environment variable", "not shown"]),
        (format!("key = \"{SECRET}\""), &["`feed.keys.key` holds a secret", "name that as `key_file`"]),
        (String::new(), &["no. 1 has no key", "set `key_file` or `key_env`"]),
    ] {
        desk.write("tickmint.toml", &format!("[[feed.keys]]\nsymbols = [\"A\"]\n{lines}\n"));
        desk.run("check --config").says(CONFIG, parts);
    }
    desk.write("tickmint.toml", "");
    desk.run("check --config").says(CONFIG, &["`feed.keys` is empty", "add a `[[feed.keys]]`"]);
    with_feed(&desk, &format!("[feed]\nurl = \"wss://ws.finnhub.io?token={SECRET}\""));
    desk.run("check --config").says(CONFIG, &["`feed.url` carries a token", "`[[feed.keys]]`"]);
    with_feed(&desk, &format!("[feed]\nurl = \"wss://me:{SECRET}@ws.finnhub.io\""));
    desk.run("check --config").says(CONFIG, &["`feed.url` carries a token or a password", "`[[feed.keys]]`"]);
    with_feed(&desk, &format!("[http]\ntoken = \"{SECRET}\n"));
    desk.run("check --config").says(CONFIG, &["line 2: not TOML"]);
}

#[test]
fn symbols_and_keys_that_stand_twice_are_told_with_both_places() {
    let desk = Desk::new();
    let (one, other) = (desk.path("key"), desk.write("other", &format!("{SECRET}-other")));
    let keys = |first: &str, second: &str, file: &std::path::Path| {
        format!(
            "[[feed.keys]]\nkey_file = {one:?}\nsymbols = [{first}]\n[[feed.keys]]\nkey_file = {file:?}\nsymbols = [{second}]\n"
        )
    };
    desk.write("tickmint.toml", &keys("\"A\", \"B\"", "\"B\"", &other));
    desk.run("check --config").says(CONFIG, &["line 6", "no. 2 has `B`, as has no. 1", "remove one"]);
    desk.write("tickmint.toml", &keys("\"A\", \"A\"", "\"B\"", &other));
    desk.run("check --config").says(CONFIG, &["line 3", "no. 1 has `A` twice: remove one"]);
    desk.write("tickmint.toml", &keys("\"A\"", "\"B\"", &one));
    desk.run("check --config").says(CONFIG, &["the key of `[[feed.keys]]` no. 2 is that of no. 1", "a key of its own"]);
    desk.write("tickmint.toml", &keys("\"A\"", "\"\"", &other));
    desk.run("check --config").says(CONFIG, &["line 6", "no exchange lists", "`BINANCE:BTCUSDT`"]);
    // The control: the same with nothing twice is a config.
    desk.write("tickmint.toml", &format!("{}[warehouse]\nenabled = false\n", keys("\"A\"", "\"B\"", &other)));
    desk.run("verify --config").says(0, &[]);
}

#[test]
fn every_command_tells_of_a_wrong_config_and_all_that_is_wrong_at_once() {
    let desk = Desk::new();
    with_feed(&desk, "drain_within = 60\n[spool]\nfoo = 1");
    for line in ["run --config", "check --config", "status --config", "verify --config", "chain show --config"] {
        desk.run(line)
            .says(CONFIG, &["has 2 problems", "line 1: `drain_within` is `60`", "line 3: there is no option `spool.foo`"]);
    }
    for line in ["run", "check", "status", "verify", "chain show"] {
        desk.run(&format!("{line} --config=nowhere.toml"))
            .says(CONFIG, &["config nowhere.toml: cannot be read (No such file", "a copy of config/example.toml"]);
        desk.run(line).says(CONFIG, &["config tickmint.toml", "has 2 problems"]);
    }
    std::fs::remove_file(desk.path("tickmint.toml")).unwrap();
    desk.run("check").says(CONFIG, &["config tickmint.toml: cannot be read (No such file", "`--config`"]);
}

#[test]
fn looking_at_data_and_asking_the_daemon_need_no_keys() {
    let desk = Desk::new();
    std::fs::remove_file(desk.path("key")).unwrap();
    desk.run("verify --config").says(0, &["lost             0"]);
    desk.run("chain show --config").says(0, &["trades/0 has no slot in folder"]);
    desk.run("status --config").says(1, &["no daemon with `http.listen`"]);
    desk.run("run --config").says(CONFIG, &["`key_file`", "No such file"]);
}
