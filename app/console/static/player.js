// <call-player>: the recording as two waves, in step with the transcript. Without it, the browser's own controls stay.

const SPEEDS = [1, 1.25, 1.5, 2, 0.75];
const SHAPES = { play: "M7 4.5 19.5 12 7 19.5z", pause: "M7 5h3.2v14H7zM13.8 5H17v14h-3.2z" };
const STEP = 3; // pixels from bar to bar
const TURNS = ".turns > .turn";

const length = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const shape = (path) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("class", "i");
  made.setAttribute("viewBox", "0 0 24 24");
  made.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("class", "f");
  line.setAttribute("d", path);
  made.append(line);
  return made;
};

class CallPlayer extends HTMLElement {
  async connectedCallback() {
    if (this.audio) return;
    this.audio = this.querySelector("audio");
    const answer = await fetch(this.getAttribute("peaks")).catch(() => null);
    if (!answer?.ok) return;
    this.wave = await answer.json();
    this.speed = 0;
    this.side = -1; // which side is heard: -1 both
    this.build();
    this.listen();
    const at = /^#t=([\d.]+)$/.exec(location.hash);
    if (at) this.go(Number(at[1]));
    this.show();
  }

  build() {
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.range = make("input", { type: "range", min: 0, max: this.wave.seconds, step: 0.1, value: 0 });
    this.range.setAttribute("aria-label", "Position in the recording");
    const names = this.wave.roles.map((role, side) =>
      make("span", { class: `who ${role} ${side ? "low" : "high"}` }, role[0].toUpperCase() + role.slice(1)),
    );
    const wave = make("div", { class: "wave" }, ...names, this.canvas, this.range);

    this.button = make("button", { type: "button", class: "pp", "aria-label": "Play" }, shape(SHAPES.play));
    this.now = make("b", {}, "0:00");
    this.rate = make("button", { type: "button", class: "btn ghost", "aria-label": "Speed 1×" }, "1×");
    this.skip = make("input", { type: "checkbox" });
    const controls = make(
      "div",
      { class: "ctl" },
      this.button,
      make("span", { class: "time" }, this.now, ` / ${length(this.wave.seconds)}`),
      this.rate,
      make("label", { class: "ck" }, this.skip, " Skip silence"),
      this.sides(),
      make("span", { class: "grow" }),
      this.keysHint(),
    );
    this.audio.removeAttribute("controls");
    this.append(wave, controls);
    this.ready = true;
  }

  sides() {
    if (this.wave.sides.length < 2) return "";
    const buttons = ["Both", ...this.wave.roles].map((name, place) => {
      const text = name[0].toUpperCase() + name.slice(1);
      const button = make("button", { type: "button", "aria-pressed": place === 0 }, text);
      button.addEventListener("click", () => {
        buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
        this.hear(place - 1);
      });
      return button;
    });
    return make("span", { class: "seg", role: "group", "aria-label": "Listen to" }, ...buttons);
  }

  keysHint() {
    const keys = [["Space", "play"], ["←", ""], ["→", "5 s"], ["J", ""], ["K", "turn"]];
    const parts = keys.flatMap(([key, does]) => [make("kbd", {}, key), does ? ` ${does} ` : " "]);
    return make("span", { class: "mut keys", "aria-hidden": "true" }, ...parts);
  }

  listen() {
    this.button.addEventListener("click", () => this.toggle());
    this.range.addEventListener("input", () => this.go(Number(this.range.value)));
    this.rate.addEventListener("click", () => {
      this.speed = (this.speed + 1) % SPEEDS.length;
      this.audio.playbackRate = SPEEDS[this.speed];
      this.rate.textContent = `${SPEEDS[this.speed]}×`;
      this.rate.setAttribute("aria-label", `Speed ${SPEEDS[this.speed]}×`);
    });
    for (const name of ["play", "pause", "seeked", "timeupdate", "ended"]) {
      this.audio.addEventListener(name, () => this.show());
    }
    // Turns may come into the page later than the player.
    document.addEventListener("click", (event) => {
      const turn = event.target.closest(TURNS);
      if (!turn || String(getSelection())) return;
      this.go(Number(turn.dataset.start));
      this.play();
    });
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get turns() {
    return [...document.querySelectorAll(TURNS)];
  }

  go(seconds) {
    this.audio.currentTime = Math.max(0, Math.min(seconds, this.wave.seconds));
    this.show();
  }

  toggle() {
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  play() {
    this.audio.play().catch(() => this.show()); // it was paused before it began, or it cannot be had
  }

  // One side alone, on both ears.
  hear(side) {
    this.side = side;
    if (!this.context) {
      this.context = new AudioContext();
      this.source = this.context.createMediaElementSource(this.audio);
      this.splitter = this.context.createChannelSplitter(2);
    }
    this.context.resume();
    this.source.disconnect();
    this.splitter.disconnect();
    if (side < 0) this.source.connect(this.context.destination);
    else {
      const one = this.context.createChannelMerger(2);
      this.source.connect(this.splitter);
      this.splitter.connect(one, this.wave.channels[side], 0);
      this.splitter.connect(one, this.wave.channels[side], 1);
      one.connect(this.context.destination);
    }
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input:not([type=checkbox], [type=range]), select, textarea")) return;
    if (event.key === " " && event.target.closest("button, a, summary, [type=checkbox]")) return;
    if (event.key.startsWith("Arrow") && event.target === this.range) return;
    const now = this.audio.currentTime;
    const starts = this.turns.map((turn) => Number(turn.dataset.start));
    const does = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.go(now - 5),
      ArrowRight: () => this.go(now + 5),
      j: () => this.go(starts.find((at) => at > now + 0.1) ?? now),
      k: () => this.go(starts.findLast((at) => at < now - 0.7) ?? 0),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  show() {
    if (!this.ready) return;
    const now = this.audio.currentTime;
    const playing = !this.audio.paused;
    this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.button.replaceChildren(shape(playing ? SHAPES.pause : SHAPES.play));
    this.now.textContent = length(now);
    this.range.value = now;
    const spoken = this.mark(now, playing);
    const who = spoken?.querySelector(".role")?.textContent;
    this.range.setAttribute("aria-valuetext", `${length(now)} of ${length(this.wave.seconds)}${who ? `, ${who}` : ""}`);
    this.draw();
    if (!playing) return;
    if (this.skip.checked && !spoken) {
      const next = this.turns.map((turn) => Number(turn.dataset.start)).find((at) => at > now);
      if (next > now + 0.5) this.audio.currentTime = next;
    }
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.show());
  }

  // Mark the turn that is spoken, and return it.
  mark(now, playing) {
    let spoken;
    for (const turn of this.turns) {
      const isOn = (playing || now > 0) && now >= turn.dataset.start - 0.05 && now < turn.dataset.end;
      if (isOn) spoken = turn;
      if (isOn === turn.classList.contains("on")) continue;
      turn.classList.toggle("on", isOn);
      const button = turn.querySelector("button");
      if (isOn) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      if (isOn && playing) turn.scrollIntoView({ block: "nearest", behavior: this.motion });
    }
    return spoken;
  }

  get motion() {
    return matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  }

  // light-dark() is resolved only where it is a colour.
  ink(name) {
    this.probe ??= this.appendChild(make("i", { hidden: "" }));
    this.probe.className = `ink-${name}`;
    return getComputedStyle(this.probe).color;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== width * ratio) this.canvas.width = width * ratio;
    if (this.canvas.height !== height * ratio) this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const at = (this.audio.currentTime / this.wave.seconds) * width;
    const lane = height / this.wave.sides.length;
    this.wave.sides.forEach((levels, side) => {
      const [full, dim] = [this.ink(this.wave.roles[side]), this.ink(`${this.wave.roles[side]}dim`)];
      pen.globalAlpha = this.side >= 0 && this.side !== side ? 0.25 : 1;
      const bars = Math.floor(width / STEP);
      for (let bar = 0; bar < bars; bar++) {
        const from = Math.floor((bar * levels.length) / bars);
        const to = Math.max(from + 1, Math.floor(((bar + 1) * levels.length) / bars));
        const tall = Math.max(1.5, (Math.max(...levels.slice(from, to)) / 255) * (lane - 8));
        pen.fillStyle = bar * STEP < at || !at ? full : dim;
        pen.fillRect(bar * STEP, side * lane + (lane - tall) / 2, 2, tall);
      }
    });
    pen.globalAlpha = 1;
    if (at) {
      pen.fillStyle = this.ink("fg");
      pen.fillRect(Math.min(width - 1.5, at - 0.75), 0, 1.5, height);
    }
  }
}
customElements.define("call-player", CallPlayer);
