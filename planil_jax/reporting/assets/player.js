// Plays a drive: on the plane its path, its plans by weight and their mean; beside it, traces.
// Space plays, arrows step (shift: by ten), f zooms; #frame=40 in the address shows step 40.
"use strict";
(() => {
  const root = document.getElementById("player");
  const data = JSON.parse(document.getElementById("drive").textContent);
  const find = (name) => root.querySelector(`.${name}`);
  const plane = find("plane"), traces = find("traces"), scrub = find("scrub");
  const colours = {
    ink: "#1b1f24", muted: "#6b7583", grid: "#e8ebef", demos: "#8a94a1",
    plans: "213, 94, 0", trail: "#0072b2", goal: "#009e73",
  };
  const frames = data.frames, last = frames.length - 1;
  // Half the width of the view from near, metres: what the plans of a step reach.
  const sight = 1.15 * Math.max(0.5, ...frames.map(({ pose, plans }) =>
    Math.max(...plans.map((plan) => Math.hypot(plan.at(-2) - pose[0], plan.at(-1) - pose[1])))));
  let now = 0, playing = false, before = 0;

  let underlay = null;
  if (data.underlay) {
    const image = new Image();
    image.onload = () => { underlay = image; draw(); };
    image.src = data.underlay.image;
  } else {
    find("underlay-choice").hidden = true;
  }
  find("goal").parentElement.hidden = !data.goal;

  // ---------------------------------------------------------------------------- drawing

  // The canvas in CSS pixels, cleared, at the screen's own resolution.
  function open(canvas) {
    const { clientWidth: width, clientHeight: height } = canvas;
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const context = canvas.getContext("2d");
    context.scale(density, density);
    context.lineJoin = context.lineCap = "round";
    return { context, width, height };
  }

  function drawPlane() {
    const { context, width, height } = open(plane);
    const frame = frames[Math.floor(now)];
    const near = find("follow").checked;
    const [left, right, bottom, top] = near
      ? [frame.pose[0] - sight, frame.pose[0] + sight, frame.pose[1] - sight, frame.pose[1] + sight]
      : data.bounds;
    const scale = width / (right - left);
    const at = (x, y) => [(x - left) * scale, height - (y - bottom) * scale];
    const trace = (flat, from = 0, to = flat.length) => {
      context.beginPath();
      for (let i = from; i < to; i += 2) context.lineTo(...at(flat[i], flat[i + 1]));
      context.stroke();
    };

    if (underlay && find("underlay").checked) {
      const [l, r, b, t] = data.underlay.bounds;
      context.imageSmoothingQuality = "high";
      context.drawImage(underlay, ...at(l, t), (r - l) * scale, (t - b) * scale);
    }
    drawGrid(context, at, [left, right, bottom, top], width, height);

    context.lineWidth = 1.3;
    context.strokeStyle = colours.demos;
    data.demonstrations.forEach((path) => trace(path));

    if (data.goal) {
      const [x, y, radius] = data.goal;
      context.strokeStyle = colours.goal;
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(...at(x, y), radius * scale, 0, 2 * Math.PI);
      context.stroke();
    }

    context.strokeStyle = colours.trail;
    context.lineWidth = 3;
    trace(frames.slice(0, Math.floor(now) + 1).flatMap((f) => f.pose.slice(0, 2)));

    // Light plans first, so that those that count lie on top.
    const most = Math.max(...frame.weights, 1e-9);
    context.lineWidth = near ? 1.6 : 1.2;
    for (let k = frame.plans.length - 1; k >= 0; k--) {
      const opacity = 0.2 + 0.75 * (frame.weights[k] / most) ** 0.4;
      context.strokeStyle = `rgba(${colours.plans}, ${opacity})`;
      trace(frame.plans[k]);
    }
    context.strokeStyle = colours.ink;
    context.lineWidth = 3.5;
    trace(frame.mean);
    drawCar(context, at(frame.pose[0], frame.pose[1]), frame.pose[2], Math.max(0.33 * scale, 13));
  }

  function drawGrid(context, at, [left, right, bottom, top], width, height) {
    const step = right - left > 60 ? 10 : right - left > 25 ? 5 : right - left > 8 ? 2 : 1;
    context.lineWidth = 1;
    context.strokeStyle = colours.grid;
    context.fillStyle = colours.muted;
    context.font = "11px system-ui, sans-serif";
    for (let x = Math.ceil(left / step) * step; x <= right; x += step) {
      const [px] = at(x, 0);
      context.strokeRect(px, -1, 0, height + 2);
      if (px > 34 && px < width - 14) context.fillText(`${x}`, px + 3, height - 6);
    }
    for (let y = Math.ceil(bottom / step) * step; y <= top; y += step) {
      const [, py] = at(0, y);
      context.strokeRect(-1, py, width + 2, 0);
      if (py > 14 && py < height - 20) context.fillText(`${y} m`, 5, py - 4);
    }
  }

  function drawCar(context, [x, y], heading, length) {
    context.save();
    context.translate(x, y);
    context.rotate(-heading);
    context.beginPath();
    context.moveTo(0.75 * length, 0);
    context.lineTo(-0.5 * length, 0.45 * length);
    context.lineTo(-0.25 * length, 0);
    context.lineTo(-0.5 * length, -0.45 * length);
    context.closePath();
    context.fillStyle = colours.trail;
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.stroke();
    context.fill();
    context.restore();
  }

  // Round numbers from low to high, about as many as are asked for.
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= 0.999 * rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
      found.push([i * step, (i * step).toFixed(digits)]);
    }
    return found;
  }

  const gutter = 38; // CSS pixels left of the traces, for their scales
  const margin = 10; // right of them, for half of a number

  function drawTraces() {
    const { context, width, height } = open(traces);
    const below = 34; // for the seconds
    const each = (height - below) / data.traces.length;
    const room = width - gutter - margin;
    const across = (step) => gutter + (step / Math.max(last, 1)) * room;
    const line = (x, y, dx, dy) => context.strokeRect(x, y, dx, dy);
    const seconds = ticks(0, last * data.period, 5);
    data.traces.forEach(({ name, values }, i) => {
      const low = Math.min(0, ...values), high = Math.max(0, ...values) || 1;
      const top = i * each + 30, tall = each - 44;
      const down = (value) => top + tall * (1 - (value - low) / (high - low));
      context.font = "600 12.5px system-ui, sans-serif";
      context.textAlign = "left";
      context.fillStyle = colours.ink;
      context.fillText(name, 0, i * each + 15);
      context.textAlign = "right";
      context.fillStyle = colours.trail;
      context.fillText(String(values[Math.floor(now)]), width - margin, i * each + 15);
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = colours.muted;
      context.lineWidth = 1;
      context.strokeStyle = colours.grid;
      for (const [second] of seconds) line(across(second / data.period), top, 0, tall);
      for (const [value, written] of ticks(low, high, tall > 90 ? 4 : 3)) {
        context.strokeStyle = value === 0 ? "#b3bbc5" : colours.grid;
        line(gutter, down(value), room, 0);
        context.fillText(written, gutter - 6, down(value) + 4);
      }
      context.lineWidth = 1.6;
      for (const [from, to, style] of [[0, last, "#b9c9d6"], [0, Math.floor(now), colours.trail]]) {
        context.strokeStyle = style;
        context.beginPath();
        for (let t = from; t <= to; t++) context.lineTo(across(t), down(values[t]));
        context.stroke();
      }
      context.strokeStyle = colours.muted;
      context.lineWidth = 1;
      line(across(Math.floor(now)), top - 4, 0, tall + 8);
    });
    context.textAlign = "center";
    for (const [second, written] of seconds) {
      context.fillText(written, across(second / data.period), height - below + 6);
    }
    context.fillText("time [s]", gutter + room / 2, height - 8);
  }

  function draw() {
    drawPlane();
    drawTraces();
    const step = Math.floor(now);
    scrub.value = step;
    find("clock").textContent = `step ${step} of ${last} · ${(step * data.period).toFixed(1)} s`;
    find("play").textContent = playing ? "Pause" : now >= last ? "Replay" : "Play";
  }

  // ---------------------------------------------------------------------------- playing

  function show(frame) {
    now = Math.min(Math.max(frame, 0), last);
    draw();
  }

  function pauseAt(frame) {
    playing = false;
    show(Math.round(frame));
    try { history.replaceState(null, "", `#frame=${Math.floor(now)}`); } catch { /* sandboxed */ }
  }

  function toggle() {
    if (playing) return pauseAt(Math.floor(now));
    if (now >= last) now = 0;
    playing = true;
    before = performance.now();
    requestAnimationFrame(tick);
  }

  function tick(time) {
    if (!playing) return;
    const seconds = Math.min((time - before) / 1000, 0.25); // a hidden page stands still
    before = time;
    now += (Math.max(seconds, 0) * Number(find("speed").value)) / data.period;
    if (now >= last) playing = false;
    show(now);
    if (playing) requestAnimationFrame(tick);
  }

  function fromAddress() {
    const found = /#frame=(\d+)/.exec(location.hash);
    if (found) { playing = false; show(Number(found[1])); }
    return Boolean(found);
  }

  scrub.max = last;
  scrub.addEventListener("input", () => pauseAt(Number(scrub.value)));
  find("play").addEventListener("click", toggle);
  for (const name of ["follow", "underlay"]) find(name).addEventListener("change", draw);
  const seek = (event) => {
    const room = traces.clientWidth - gutter - margin;
    if (event.buttons) pauseAt((last * (event.offsetX - gutter)) / room);
  };
  traces.addEventListener("pointerdown", seek);
  traces.addEventListener("pointermove", seek);
  window.addEventListener("hashchange", fromAddress);
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(root);

  let visible = false, greeted = fromAddress();
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (visible && !greeted && !still) { greeted = true; toggle(); }
  }, { threshold: 0.6 }).observe(root);

  document.addEventListener("keydown", (event) => {
    const inForm = /^(SELECT|TEXTAREA|BUTTON|SUMMARY)$/.test(event.target.tagName);
    if (!visible || inForm || event.ctrlKey || event.metaKey || event.altKey) return;
    const stride = event.shiftKey ? 10 : 1;
    const actions = {
      " ": toggle,
      ArrowLeft: () => pauseAt(Math.floor(now) - stride),
      ArrowRight: () => pauseAt(Math.floor(now) + stride),
      f: () => find("follow").click(),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  draw();
})();
