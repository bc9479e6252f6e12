// The page of the flash sale: state by one request, then live by WebSocket. Messages only change
// the model; the screen is painted at most once per frame, however many sales arrive.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
const money = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const FEED = 6;
const SECONDS = 60;

const model = {
  items: new Map(), // id -> {name, price, icon, stock, available, element}
  reserved: 0, oversold: 0, hold: 20,
  feed: [], mine: new Map(), workers: new Map(), report: "",
  rates: new Array(SECONDS).fill(0), thisSecond: 0,
};

// -- painting ---------------------------------------------------------------------------------

let painting = false;
function repaint() {
  if (!painting) { painting = true; requestAnimationFrame(paint); }
}

function text(element, value) {
  value = String(value);
  if (element.textContent !== value) element.textContent = value;
}

function fill(bar, part, words) {
  part = Math.min(1, Math.max(0, part || 0));
  bar.firstElementChild.style.setProperty("--part", part);
  bar.setAttribute("aria-valuenow", Math.round(part * 100));
  if (words) bar.setAttribute("aria-valuetext", words);
}

const iconOf = (item) => `/page/icons.svg#${item.icon}`;

function icon(item) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon-small");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", iconOf(item));
  svg.append(use);
  return svg;
}

function make(tag, className, content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content !== undefined) element.textContent = content;
  return element;
}

function paint() {
  painting = false;
  let stock = 0, left = 0;
  for (const item of model.items.values()) {
    stock += item.stock; left += item.available;
    paintItem(item);
  }
  const sold = stock - left - model.reserved;
  text($("sold"), number.format(sold));
  text($("stock"), number.format(stock));
  text($("left"), number.format(left));
  text($("reserved"), number.format(model.reserved));
  text($("oversold"), number.format(model.oversold));
  $("oversold").dataset.good = model.oversold === 0;
  fill($("sold-bar"), sold / stock, `${sold} of ${stock} sold`);
  paintFeed(); paintOrders(); paintWorkers();
  text($("report"), model.report);
}

function paintItem(item) {
  if (!item.element) {
    item.element = $("item-template").content.firstElementChild.cloneNode(true);
    item.element.querySelector("use").setAttribute("href", iconOf(item));
    item.element.querySelector("h3").textContent = item.name;
    item.element.querySelector(".price").textContent = money.format(item.price / 100);
    item.element.querySelector(".bar").setAttribute("aria-label", `Stock of ${item.name}`);
    item.button = item.element.querySelector(".buy");
    item.button.addEventListener("click", () => buy(item));
    $("items").append(item.element);
  }
  const out = item.available <= 0;
  const words = out ? "Sold out" : `${number.format(item.available)} of ${number.format(item.stock)} left`;
  text(item.element.querySelector(".stock"), words);
  fill(item.element.querySelector(".bar"), item.available / item.stock, words);
  item.element.classList.toggle("sold-out", out);
  item.button.setAttribute("aria-disabled", out); // stays focusable: the piece may come back
  item.button.setAttribute("aria-label", out ? `${item.name} is sold out` : `Buy ${item.name}`);
}

function paintFeed() {
  $("feed-empty").hidden = model.feed.length > 0;
  const list = $("feed");
  while (list.children.length < model.feed.length) {
    const row = make("li");
    row.append(icon(model.feed[0].item), make("span", "what"), make("small"));
    list.append(row);
  }
  model.feed.forEach((sale, place) => {
    const [face, what, side] = list.children[place].children;
    const href = iconOf(sale.item);
    if (face.firstElementChild.getAttribute("href") !== href) face.firstElementChild.setAttribute("href", href);
    text(what, `${sale.buyer} · ${sale.item.name}`); text(side, `#${sale.order}`);
  });
}

function paintOrders() {
  $("orders-empty").hidden = model.mine.size > 0;
  for (const order of model.mine.values()) {
    if (!order.element) {
      order.element = make("li");
      order.element.append(icon(order.item), make("span", "what", order.item.name), make("small"));
      order.button = make("button", "pay", "Pay");
      order.button.type = "button";
      order.button.setAttribute("aria-label", `Pay for ${order.item.name}, order ${order.id}`);
      order.button.addEventListener("click", () => pay(order));
      order.element.append(order.button);
      $("orders").prepend(order.element);
    }
    const side = order.element.children[2];
    if (order.state === "reserved") {
      text(side, `${Math.max(0, Math.ceil(order.until - Date.now() / 1000))} s`);
    } else if (order.button) {
      const hadFocus = document.activeElement === order.button;
      order.button.remove(); order.button = null;
      side.className = `tag ${order.state}`;
      text(side, order.state);
      if (hadFocus) $("items").focus();
    }
  }
}

function paintWorkers() {
  const list = $("workers");
  const now = performance.now();
  for (const [pid, worker] of model.workers) {
    const silent = now - worker.seen;
    if (silent > 15000) { worker.element?.remove(); model.workers.delete(pid); continue; }
    if (!worker.element) {
      worker.element = make("li");
      worker.element.append(make("span", "what", `Process ${pid}`), make("small"));
      list.append(worker.element);
    }
    const gone = silent > 3500;
    worker.element.children[0].classList.toggle("gone", gone);
    text(worker.element.children[1], gone ? "gone" : `${number.format(worker.sales)} sales`);
  }
}

function paintChart() {
  const peak = Math.max(...model.rates);
  const top = Math.max(peak, 4);
  const points = model.rates.map((rate, place) => `${(place * 240 / (SECONDS - 1)).toFixed(1)},${(54 - rate / top * 50).toFixed(1)}`);
  $("chart").querySelector(".line").setAttribute("d", `M${points.join("L")}`);
  $("chart").querySelector(".area").setAttribute("d", `M0,56L${points.join("L")}L240,56Z`);
  text($("rate"), number.format(model.rates.at(-1)));
  text($("peak"), number.format(peak));
}

setInterval(() => {
  model.rates.push(model.thisSecond); model.rates.shift(); model.thisSecond = 0;
  paintChart(); repaint();
}, 1000);

// A screen reader hears a summary now and then, not every sale.
let said = "";
setInterval(() => {
  const words = `${$("sold").textContent} of ${$("stock").textContent} sold`;
  if (words !== said && model.items.size) { said = words; $("say").textContent = words; }
}, 10000);

function say(words) { $("say").textContent = words; }

// -- the server -------------------------------------------------------------------------------

async function call(path, body, key) {
  const headers = { "content-type": "application/json" };
  if (key) headers["idempotency-key"] = key;
  const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const envelope = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(envelope.msg || `status ${reply.status}`), { status: reply.status });
  return envelope.data;
}

async function callAgain(path, body, key) {
  // The same key again after a lost reply: the shop gives the same answer, never a second piece.
  for (let attempt = 0; ; attempt++) {
    try { return await call(path, body, key); } catch (error) {
      if (attempt >= 4 || (error.status && error.status < 500)) throw error;
      await new Promise((wake) => setTimeout(wake, 150 * 2 ** attempt));
    }
  }
}

let me;
try { me = localStorage.getItem("buyer"); } catch { /* no storage: a new name each time */ }
me ||= `guest-${Math.random().toString(36).slice(2, 8)}`;
try { localStorage.setItem("buyer", me); } catch { /* as above */ }

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

async function buy(item) {
  if (item.available <= 0) return;
  try {
    const order = await callAgain("/api/buy", { item: item.id, buyer: me }, newKey());
    model.mine.set(order.order, { id: order.order, state: order.state, until: order.pay_until, item });
    say(`${item.name} is yours for ${model.hold} seconds: order ${order.order}`);
  } catch (error) { say(error.message); item.element.querySelector(".stock").textContent = error.message; return; }
  repaint();
}

async function pay(order) {
  try {
    const answer = await callAgain("/api/pay", { order: order.id, buyer: me });
    order.state = answer.state;
    say(`Order ${order.id} is paid`);
  } catch (error) {
    if (error.status === 410) order.state = "released";
    say(error.message);
  }
  repaint();
}

async function refresh() {
  const state = await call("/api/state");
  for (const item of state.items) {
    const known = model.items.get(item.id);
    if (known) Object.assign(known, item); else model.items.set(item.id, item);
  }
  model.reserved = state.reserved; model.oversold = state.oversold; model.hold = state.hold;
  state.latest.forEach(feed);
  text($("hold"), state.hold);
  repaint();
}

function feed(sale) {  // told live, or found by a look at the shop, or both
  const item = model.items.get(sale.item);
  if (!item || model.feed.some((known) => known.order === sale.order)) return;
  model.feed.push({ buyer: sale.buyer, order: sale.order, item });
  model.feed.sort((a, b) => b.order - a.order);
  model.feed.length = Math.min(model.feed.length, FEED);
}

const handlers = {
  sold(message) {
    const item = model.items.get(message.item);
    if (!item) return;
    item.available = Math.max(0, item.available - 1);
    model.reserved += 1; model.thisSecond += 1;
    feed(message);
  },
  paid() { model.reserved = Math.max(0, model.reserved - 1); },
  released(message) {
    for (const id of message.orders) {
      const order = model.mine.get(id);
      if (order) { order.state = "released"; say(`Order ${id} was not paid in time`); }
    }
    refresh().catch(() => {});
  },
  worker(message) {
    const worker = model.workers.get(message.pid) ?? {};
    model.workers.set(message.pid, Object.assign(worker, { sales: message.sales, seen: performance.now() }));
  },
  totals(message) {
    if (!model.items.size) refresh().catch(() => {});  // the first look at the shop has failed
    for (const [id, available] of message.available) {
      const item = model.items.get(id);
      if (item) item.available = available;
    }
    model.reserved = message.reserved; model.oversold = message.oversold;
  },
  report(message) { model.report = message.text; },
};

let pause = 250;
function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  const state = (value, words) => { $("link").dataset.state = value; text($("link-text"), words); };
  let alive;
  socket.onopen = () => { pause = 250; alive = setInterval(() => socket.send("here"), 20000); state("live", "Live"); refresh().catch(() => {}); };
  socket.onmessage = ({ data }) => {
    for (const message of JSON.parse(data)) handlers[message.type]?.(message);
    repaint();
  };
  socket.onclose = () => {
    clearInterval(alive);
    state("lost", "Reconnecting");
    setTimeout(connect, pause + Math.random() * 250);
    pause = Math.min(pause * 2, 5000);
  };
}

const themes = ["", "light", "dark"];
const applyTheme = (name) => { if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme; };
let theme = "";
try { theme = localStorage.getItem("theme") || ""; } catch { /* follow the system */ }
applyTheme(theme);
$("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  applyTheme(theme);
  try { localStorage.setItem("theme", theme); } catch { /* not kept */ }
  say(`Theme: ${theme || "as the system"}`);
});

paintChart();
refresh().catch(() => {});
connect();
