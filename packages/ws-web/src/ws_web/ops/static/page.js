"use strict";

const one = (id) => document.getElementById(id);
const rows = (id) => document.querySelector(`#${id} .rows`);
const KEPT = 180; // seconds of history in the charts
let token = sessionStorage.getItem("ops token") || "";
let paused = false;
let acts = false;
let before = null;

// Everything is put into the page as text: what a service shows may have come from its clients.
function element(name, text, options = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, options);
}

function table(id, heads, lines) {
  const place = rows(id);
  if (!lines.length) { place.replaceChildren(element("p", "nothing", { className: "empty" })); return; }
  const focused = document.activeElement?.dataset?.key;
  const made = element("table"), head = element("tr");
  heads.forEach((text) => head.append(element("th", text.replace("#", ""), { className: text.startsWith("#") ? "number" : "" })));
  made.append(element("thead"), element("tbody"));
  made.tHead.append(head);
  for (const line of lines) {
    const row = element("tr");
    line.forEach((cell, index) => {
      const td = element("td", undefined, { className: heads[index].startsWith("#") ? "number" : "" });
      td.append(cell instanceof Node ? cell : String(cell ?? ""));
      row.append(td);
    });
    made.tBodies[0].append(row);
  }
  place.replaceChildren(made);
  if (focused) [...made.querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

const headers = () => (token ? { authorization: `Bearer ${token}` } : {});
const seconds = (value) => value >= 1 ? `${value.toFixed(1)} s` : `${(value * 1000).toFixed(1)} ms`;
const moment = (value) => value ? new Date(typeof value === "number" ? value * 1000 : value).toLocaleTimeString([], { hour12: false }) : "";

function bars(edges, counts) {
  const made = element("span", undefined, { className: "bars" });
  const most = Math.max(1, ...counts);
  const named = counts.map((count, index) => `${index < edges.length ? "≤ " + seconds(edges[index]) : "more"}: ${count}`);
  made.title = named.join("\n");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", named.join(", "));
  counts.forEach((count) => made.append(element("i", undefined, { style: `height:${100 * count / most}%` })));
  return made;
}

function chart(id) {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const place = one(id);
  const axis = { stroke: () => style("--dim"), grid: { stroke: () => style("--line"), width: 1 }, ticks: { stroke: () => style("--line"), width: 1 } };
  const data = [[], []];
  const plot = new uPlot({
    width: place.clientWidth || 260, height: 130, cursor: { show: false }, legend: { show: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(1, (high || 0) * 1.1)] } },
    axes: [{ ...axis, space: 70 }, { ...axis, size: 46 }],
    series: [{}, { stroke: () => style("--accent"), width: 2, points: { show: false } }],
  }, data, place);
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth || 260, height: 130 })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  return (at, value) => {
    data[0].push(at); data[1].push(value);
    while (data[0].length > KEPT) { data[0].shift(); data[1].shift(); }
    plot.setData(data);
  };
}

let charts = null;

function sum(metrics, name, field = "value") {
  return metrics.filter((metric) => metric.name === name).reduce((total, metric) => total + metric[field], 0);
}

function draw(state) {
  const now = Date.now() / 1000, metrics = state.metrics, workers = state.workers;
  const name = "http.server.request.duration";
  const count = sum(metrics, name, "count"), time = sum(metrics, name);
  if (before && now > before.now) {
    const made = Math.max(0, count - before.count);
    charts.requests(now, made / (now - before.now));
    charts.time(now, made ? Math.max(0, time - before.time) / made * 1000 : 0);
    charts.lag(now, Math.max(0, ...workers.map((worker) => worker.lag)) * 1000);
    charts.waiting(now, sum(metrics, "db.client.connection.pending_requests"));
  }
  before = { now, count, time };
  acts = state.acts;

  table("workers", ["process", "started", "Python", "#under way", "#lag"], workers.map((worker) =>
    [worker.pid, moment(worker.started_at), worker.python, worker.requests.length, seconds(worker.lag)]));
  table("requests", ["#age", "method", "route", "process", "id"], workers.flatMap((worker) => worker.requests.map((request) =>
    [request.age, request.method, request.route, worker.pid, request.id])).sort((a, b) => b[0] - a[0]).slice(0, 50)
    .map(([age, ...rest]) => [seconds(age), ...rest]));
  drawRoutes(metrics.filter((metric) => metric.name === name));
  drawPools(metrics);
  drawTasks(workers);
  drawMessages(metrics);
  table("locks", ["lock", "#held for", "process"], workers.flatMap((worker) => worker.locks.map((lock) =>
    [lock.name, seconds(lock.seconds), worker.pid])));
  table("slow", ["when", "#took", "what", "process"], workers.flatMap((worker) => [
    ...worker.slow_statements.map((one) => [one.at, one.seconds, `${one.system}: ${one.text}`, worker.pid]),
    ...worker.slow_callbacks.map((one) => [one.at, one.seconds, `event loop blocked in ${one.where}`, worker.pid]),
  ]).sort((a, b) => b[0] - a[0]).slice(0, 40).map(([at, took, ...rest]) => [moment(at), seconds(took), ...rest]));
  drawLog(workers);
}

function drawRoutes(times) {
  const routes = new Map();
  for (const metric of times) {
    const key = `${metric.labels["http.request.method"]} ${metric.labels["http.route"] || "(no route)"}`;
    const known = routes.get(key) || { count: 0, time: 0, failed: 0, edges: metric.edges, counts: metric.buckets.map(() => 0) };
    known.count += metric.count; known.time += metric.value;
    if (metric.labels["http.response.status_code"] >= "500") known.failed += metric.count;
    metric.buckets.forEach((count, index) => { known.counts[index] += count; });
    routes.set(key, known);
  }
  table("routes", ["route", "#requests", "#failed", "#mean", "times"], [...routes].sort((a, b) => b[1].count - a[1].count).slice(0, 30)
    .map(([key, one]) => [key, one.count, one.failed, seconds(one.time / Math.max(1, one.count)), bars(one.edges, one.counts)]));
}

function drawPools(metrics) {
  const pools = new Map();
  const prefix = "db.client.connection.";
  for (const metric of metrics) {
    const http = metric.labels["wintersweet.http.client.name"];
    if (!metric.name.startsWith(prefix) && !http) continue;
    const key = http ? `http ${http}` : `${metric.labels["db.system.name"] || ""} ${metric.labels[prefix + "pool.name"] || ""}`;
    const pool = pools.get(key) || {};
    pools.set(key, pool);
    const state = metric.labels[prefix + "state"] || metric.labels["http.connection.state"] || "";
    pool[metric.name.replace(prefix, "") + state] = metric;
  }
  const value = (pool, ...names) => names.map((name) => pool[name]?.value).find((found) => found !== undefined) ?? "";
  table("pools", ["pool", "#in use", "#idle", "#most", "#waiting", "#timeouts", "waits", "in use for"], [...pools].sort().map(([key, pool]) => {
    const waits = pool.wait_time, uses = pool.use_time || pool["wintersweet.http.client.time"];
    return [key, value(pool, "countused", "http.client.open_connectionsactive"), value(pool, "countidle", "http.client.open_connectionsidle"),
      value(pool, "max"), value(pool, "pending_requests"), value(pool, "timeouts", "wintersweet.http.client.failures"),
      waits ? bars(waits.edges, waits.buckets) : "", uses ? bars(uses.edges, uses.buckets) : ""];
  }));
}

function drawMessages(metrics) {
  const places = new Map();
  for (const metric of metrics) {
    if (metric.name !== "messaging.client.consumed.messages" && metric.name !== "wintersweet.messaging.undelivered") continue;
    const key = metric.labels["messaging.destination.name"];
    const place = places.get(key) || { delivered: 0, dead: 0, other: [] };
    const reason = metric.labels["wintersweet.reason"];
    if (!reason) place.delivered += metric.value;
    else if (reason === "dead") place.dead += metric.value;
    else if (metric.value) place.other.push(`${reason}: ${metric.value}`);
    places.set(key, place);
  }
  table("messages", ["stream or channel", "#delivered", "#dead letters", "not delivered"], [...places].sort()
    .map(([key, place]) => [key, place.delivered, place.dead, place.other.join(", ")]));
}

function drawTasks(workers) {
  const lines = workers.flatMap((worker) => [...worker.tasks, ...worker.jobs].map((task) => {
    const button = element("button", "Run now", { type: "button", disabled: !acts || task.runnable === false, title: acts ? "" : "needs the token" });
    button.dataset.key = `${worker.pid} ${task.name}`;
    button.addEventListener("click", () => act("run", { name: task.name }, `task ${task.name} was started`));
    const error = element("span", task.last_error || "", { className: "bad" });
    return [task.name, task.state || "", moment(task.next_run), task.running ?? "", task.succeeded ?? "", task.failed ?? "", task.dead ?? "", error, worker.pid, button];
  }));
  table("tasks", ["task", "state", "next run", "#running", "#succeeded", "#failed", "#dead letters", "last error", "process", ""], lines);
}

function drawLog(workers) {
  const lines = workers.flatMap((worker) => worker.log.map((line) => workers.length > 1 ? `[${worker.pid}] ${line}` : line));
  const place = one("lines"), text = lines.slice(-400).join("\n");
  if (place.textContent !== text) {
    const atEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 4;
    place.textContent = text;
    if (atEnd) place.scrollTop = place.scrollHeight;
  }
  const levels = workers[0]?.levels || {};
  one("levels").textContent = Object.entries(levels).slice(0, 12).map(([key, level]) => `${key || "all"}: ${level}`).join(", ");
  one("level").querySelector("button").disabled = !acts;
  if (!one("modules").childElementCount) one("modules").append(...Object.keys(levels).filter(Boolean).map((key) => element("option", key)));
}

async function act(what, body, done) {
  const reply = await fetch(what, { method: "POST", headers: { ...headers(), "content-type": "application/json" }, body: JSON.stringify(body) });
  one("said").textContent = reply.ok ? done : (await reply.json().catch(() => ({}))).error || `failed: ${reply.status}`;
}

async function showSettings() {
  const reply = await fetch("settings", { headers: headers() });
  if (reply.ok) table("settings", ["setting", "value", "source"], (await reply.json()).map((one) => [one.name, JSON.stringify(one.value), one.source]));
}

function link(state) {
  one("link").dataset.state = state;
  one("link").textContent = state;
}

// EventSource cannot send a token, so the events are read from the body.
async function follow() {
  const reply = await fetch("events", { headers: headers() });
  if (reply.status === 401) {
    one("login").hidden = false; one("main").hidden = true;
    one("refused").textContent = token ? "this token is wrong" : "";
    link("locked");
    one("token").focus();
    return false;
  }
  if (!reply.ok) throw new Error(String(reply.status));
  one("login").hidden = true; one("main").hidden = false;
  charts ||= { requests: chart("chart-requests"), time: chart("chart-time"), lag: chart("chart-lag"), waiting: chart("chart-waiting") };
  showSettings();
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    if (events.length) {
      link(paused ? "paused" : "live");
      if (!paused) draw(JSON.parse(events.at(-1).slice("data: ".length)));
    }
  }
}

async function main() {
  for (;;) {
    try {
      if (!await follow()) return;
    } catch { /* the service is restarting, or the network is gone */ }
    link("lost");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

one("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = one("token").value;
  sessionStorage.setItem("ops token", token);
  main();
});
one("level").addEventListener("submit", (event) => {
  event.preventDefault();
  const module = one("module").value.trim(), level = one("chosen").value;
  act("level", { module, level }, `level of ${module || "all"} is ${level}`);
});
one("pause").addEventListener("click", () => {
  paused = !paused;
  one("pause").setAttribute("aria-pressed", String(paused));
  one("pause").textContent = paused ? "Go on" : "Pause";
});
main();
