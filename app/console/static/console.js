// Pages work without scripts. This adds: the browser's time zone, live changes, running clocks, and keys.

const find = (selector, inside = document) => inside.querySelector(selector);
const findAll = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const MOST_ROWS = 50;
const CALL_PARTS = ["call-status", "call-progress", "call-player", "call-transcript", "call-about"];

// The server shows times in this zone.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const hadZone = document.cookie.split("; ").some((cookie) => cookie === `tz=${zone}`);
if (zone && !hadZone) document.cookie = `tz=${zone}; path=/; max-age=31536000; samesite=lax`;

// Clocks of calls in progress

const skew = Date.parse(find("meta[name=now]")?.content ?? "") - Date.now() || 0;
const length = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
};
setInterval(() => {
  for (const clock of findAll("[data-since]")) {
    clock.textContent = length((Date.now() + skew - Date.parse(clock.dataset.since)) / 1000);
  }
}, 1000);

// Live changes

const parsed = async () => {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => undefined);
  if (!answer) return; // this page is being left, or the server is away: the stream will open again
  if (answer.redirected || !answer.ok) return location.reload(); // signed out, or gone
  return new DOMParser().parseFromString(await answer.text(), "text/html");
};

// Changes are shown one after another, so that an older answer that comes late does not replace a newer one.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.then(work, work));

// Put the newest content of these parts into the page. What has not changed stays, so that focus and a running player do.
const refresh = (ids) => inTurn(() => refreshNow(ids));
const refreshNow = async (ids) => {
  const fresh = await parsed();
  if (!fresh) return;
  for (const id of ids) {
    const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
    if (!old || !next || old.innerHTML === next.innerHTML || old.dataset.shown === next.innerHTML) continue;
    if (id === "call-player" && find("call-player", old)) continue;
    old.dataset.shown = "";
    const open = findAll("details", old).map((details) => details.open);
    old.replaceChildren(...next.childNodes);
    findAll("details", old).forEach((details, place) => (details.open = open[place] ?? false));
  }
  markLive();
};

const markLive = (isLive = live?.readyState === EventSource.OPEN) => {
  for (const dot of findAll(".livedot")) dot.hidden = !isLive;
};

const showRows = (rows, all) => {
  const body = find("#rows");
  if (!body) return Object.keys(rows).length ? location.reload() : undefined; // the first call of an empty list
  for (const [id, html] of Object.entries(rows)) {
    const made = document.createElement("template");
    made.innerHTML = html; // our own server's template, which escapes what strangers wrote
    const row = made.content.firstElementChild;
    const old = document.getElementById(id);
    const hadFocus = old?.contains(document.activeElement);
    if (old) old.replaceWith(row);
    else if (all && isNewest(body, row)) body.prepend(row);
    if (hadFocus) find("a", row).focus();
  }
  while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
};
const isNewest = (body, row) => {
  const at = (one) => find("time", one)?.dateTime ?? "";
  return !body.rows.length || at(row) >= at(body.rows[0]);
};

let live;
const follow = (place) => {
  live = new EventSource(place.dataset.live);
  live.addEventListener("open", () => {
    markLive(true);
    refresh(place.dataset.rows ? ["figures", "rows"] : CALL_PARTS); // what happened before it was open
  });
  live.addEventListener("error", () => markLive(false));
  live.addEventListener("reload", () => location.reload());
  live.addEventListener("rows", (event) => {
    inTurn(() => showRows(JSON.parse(event.data), place.dataset.rows === "all"));
    if (place.dataset.rows === "all") soon(() => refresh(["figures"]), 10_000);
  });
  live.addEventListener("changed", () => refresh(CALL_PARTS));
};
let waiting;
const soon = (work, milliseconds) => {
  waiting ??= setTimeout(() => {
    waiting = undefined;
    work();
  }, milliseconds);
};
const place = find("[data-live]");
if (place) {
  follow(place);
  // A hidden page follows nothing. When it is shown again, it may have missed something.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      live.close();
      markLive(false);
    } else if (live.readyState === EventSource.CLOSED) {
      if (place.dataset.rows) location.reload();
      else follow(find("[data-live]"));
    }
  });
}

// A period is chosen at once.
for (const select of findAll("form[role=search] select[name=period]")) select.addEventListener("change", () => select.form.submit());

for (const button of findAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    find("span", button).textContent = "Copied";
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const target = { "/": find("input[type=search]"), c: find(".place") }[event.key];
  if (!target) return;
  event.preventDefault();
  if (event.key === "/") target.focus();
  else target.click();
});
