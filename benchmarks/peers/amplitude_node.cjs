// @amplitude/analytics-node on the same course: same events, clocks and output.
"use strict";

const path = require("path");
const modules = path.resolve(__dirname, "../.venvs/node/node_modules");
const amplitude = require(path.join(modules, "@amplitude/analytics-node"));

const EVENT_TYPE = "Checkout Completed";
const TICK = 2;
const TURN = 1000;

function options(argv) {
  const given = { mode: argv[0], tuning: "default", events: 50000, users: 1000, rate: 2000, seconds: 6 };
  for (let i = 1; i < argv.length; i += 2) given[argv[i].slice(2)] = argv[i + 1];
  for (const name of ["events", "users", "rate", "seconds"]) given[name] = Number(given[name]);
  return given;
}

function properties(number) {
  return {
    seq: `~${String(number).padStart(8, "0")}~`,
    quantity: number % 7,
    price: 12.5 + (number % 100),
    member: number % 2 === 0,
    tags: ["spring", "sale"],
  };
}

function userOf(number, users) {
  return `user-${String(number % users).padStart(6, "0")}`;
}

function percentiles(values, scale) {
  const ordered = Float64Array.from(values).sort();
  const at = (p) => ordered[Math.round(((ordered.length - 1) * p) / 100)] * scale;
  return { p50: at(50), p99: at(99), "p99.9": at(99.9), max: at(100) };
}

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function burst(given) {
  const laps = new Float64Array(given.events);
  const started = process.hrtime.bigint();
  const cpu = cpuSeconds();
  for (let number = 0; number < given.events; number++) {
    const user = userOf(number, given.users);
    const values = properties(number);
    const began = process.hrtime.bigint();
    amplitude.track(EVENT_TYPE, values, { user_id: user });
    laps[number] = Number(process.hrtime.bigint() - began);
    // Its best tuning: flush now and then, as its timeline handles one event a timer.
    if (given.tuning === "tuned" && number % TURN === TURN - 1) await amplitude.flush().promise;
  }
  await amplitude.flush().promise;
  const used = cpuSeconds() - cpu;
  return {
    started_ns: Number(started),
    flushed_s: Number(process.hrtime.bigint() - started) / 1e9,
    cpu_s: used,
    track_us: percentiles(laps, 1e-3),
    peak_rss_mb: process.resourceUsage().maxRSS / 1024,
  };
}

async function memory(given) {
  if (global.gc) global.gc();
  const before = process.memoryUsage().rss;
  for (let number = 0; number < given.events; number++) {
    amplitude.track(EVENT_TYPE, properties(number), { user_id: userOf(number, given.users) });
  }
  await sleep(300);
  if (global.gc) global.gc();
  return { bytes_per_event: (process.memoryUsage().rss - before) / given.events };
}

async function paced(given) {
  const late = [];
  let ticking = true;
  const tick = (due) => {
    late.push(Math.max(Number(process.hrtime.bigint() - due), 0));
    if (ticking) setTimeout(tick, TICK, process.hrtime.bigint() + BigInt(TICK * 1e6));
  };
  setTimeout(tick, TICK, process.hrtime.bigint() + BigInt(TICK * 1e6));
  await sleep(300);
  late.length = 0;
  const started = process.hrtime.bigint();
  const cpu = cpuSeconds();
  const total = Math.floor(given.rate * given.seconds);
  let number = 0;
  while (number < total) {
    const due = Math.floor((Number(process.hrtime.bigint() - started) * given.rate) / 1e9);
    for (; number < Math.min(due, total); number++) {
      amplitude.track(EVENT_TYPE, properties(number), { user_id: userOf(number, given.users) });
    }
    await sleep(1);
  }
  const used = cpuSeconds() - cpu;
  ticking = false;
  const lag = percentiles(late, 1e-6);
  await amplitude.flush().promise;
  return { started_ns: Number(started), cpu_s: used, events: total, lag_ms: lag, full_collections: 0 };
}

async function busy(given) {
  const started = process.hrtime.bigint();
  const elapsed = () => Number(process.hrtime.bigint() - started) / 1e9;
  let number = 0;
  while (elapsed() < given.seconds) {
    const due = Math.floor(elapsed() * given.rate);
    for (; number < due; number++) {
      amplitude.track(EVENT_TYPE, properties(number), { user_id: userOf(number, given.users) });
    }
    await sleep(1);
  }
  const offered = { events: number, ended_ns: Number(process.hrtime.bigint()) };
  process.stdout.write(`${JSON.stringify(offered)}\n`);
  // Nobody flushes: its flush() gives up what its timer would send again.
  await new Promise((resolve) => process.stdin.on("end", resolve).resume());
  return offered;
}

async function main() {
  const given = options(process.argv.slice(2));
  const config = { serverUrl: `${given.url}/2/httpapi`, logLevel: 0 };
  if (given.mode === "busy") config.flushIntervalMillis = 1000;
  if (given.tuning === "tuned") config.flushQueueSize = 1000;
  await amplitude.init("bench", config).promise;
  const figures = await { burst, memory, paced, busy }[given.mode](given);
  process.stdout.write(`${JSON.stringify(figures)}\n`, () => process.exit(0));
}

main();
