
/* ================================================================== the live page, in front of the figures above */

const page = Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, "0")).join("");
const stage = $("stage"), ground = $("ground"), UPLOADED = 448;  // pixels of the longer side that is sent
const PLAIN = ["#f4f1ea", "#cfe3f5", "#d9ecd0", "#f7d9c4", "#2e3440"];
let served, sheet;  // what the server has: names of samples and drawings
let things = [], strokes = [], chosenThing = null, base = {color: PLAIN[0], image: null, name: "", width: 1, height: 1};
const switched = new Map(), off = new Map();  // name -> values; "tower 1 3" -> ["tower", 1, 3]

/* ------------------------------------------------------------------------------ the stage */

// A thing's middle is in shares of the stage's sides, its size (the longer side) in shares of the shorter one.
function addThing(drawing, x, y, size = .32) {
  const thing = {drawing, x, y, size, angle: 0, mirrored: false};
  const canvas = make("canvas", {width: drawing.width, height: drawing.height});
  canvas.getContext("2d").drawImage(sheet, drawing.x, drawing.y, drawing.width, drawing.height, 0, 0, drawing.width, drawing.height);
  thing.canvas = canvas;
  thing.element = make("button", {type: "button", class: "thing"}, canvas, make("span", {class: "grip turn"}), make("span", {class: "grip size"}));
  thing.element.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.stopPropagation();
    event.preventDefault();
    thing.element.focus({preventScroll: true});
    choose(thing);
    const grip = event.target.classList;
    drag(event, thing, grip.contains("turn") ? "turn" : grip.contains("size") ? "size" : "move");
  });
  thing.element.addEventListener("focus", () => choose(thing));
  thing.element.addEventListener("keydown", event => keyOn(event, thing));
  things.push(thing);
  $("things").append(thing.element);
  placeThing(thing);
  return thing;
}
const shorter = () => Math.min(base.width, base.height);
function placeThing(thing) {
  const {drawing, element, canvas} = thing, longer = Math.max(drawing.width, drawing.height);
  const wide = thing.size * drawing.width / longer * shorter() / base.width;
  element.style.cssText = `left: ${100 * thing.x}%; top: ${100 * thing.y}%; width: ${100 * wide}%; ` +
    `aspect-ratio: ${drawing.width} / ${drawing.height}; transform: translate(-50%, -50%) rotate(${thing.angle}deg)`;
  canvas.style.transform = thing.mirrored ? "scaleX(-1)" : "";
  const place = `${["top", "middle", "bottom"][Math.min(2, Math.floor(Math.max(0, thing.y) * 3))]} ${["left", "center", "right"][Math.min(2, Math.floor(Math.max(0, thing.x) * 3))]}`;
  element.setAttribute("aria-label", `${drawing.name}, ${place}`);
}
function choose(thing) {
  chosenThing = thing;
  for (const one of things) one.element.classList.toggle("chosen", one === thing);
  for (const button of document.querySelectorAll("[data-tool]")) button.disabled = !thing;
}
function removeThing(thing) {
  things = things.filter(one => one !== thing);
  thing.element.remove();
  if (chosenThing === thing) choose(null);
}
// Calls move for each move of this pointer, until it is let go: then end.
function followPointer(event, move, end) {
  const moved = e => { if (e.pointerId === event.pointerId) move(e); };
  const ended = e => {
    if (e.pointerId !== event.pointerId) return;
    for (const [name, listener] of listeners) removeEventListener(name, listener);
    end();
  };
  const listeners = [["pointermove", moved], ["pointerup", ended], ["pointercancel", ended]];
  for (const [name, listener] of listeners) addEventListener(name, listener);
}
// A thing that is left outside of the picture is gone.
function drag(event, thing, way) {
  const box = stage.getBoundingClientRect(), at = e => [(e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height];
  const [startX, startY] = at(event), from = {...thing};
  const distance = (x, y) => Math.hypot((x - thing.x) * box.width, (y - thing.y) * box.height) || 1;
  const angle = (x, y) => Math.atan2((y - thing.y) * box.height, (x - thing.x) * box.width) * 180 / Math.PI;
  followPointer(event, e => {
    const [x, y] = at(e);
    if (way === "move") [thing.x, thing.y] = [from.x + x - startX, from.y + y - startY];
    else if (way === "size") thing.size = limited(from.size * distance(x, y) / distance(startX, startY));
    else thing.angle = from.angle + angle(x, y) - angle(startX, startY);
    placeThing(thing);
    thing.element.classList.toggle("leaving", isOutside(thing));
    ask(true);
  }, () => {
    if (isOutside(thing)) removeThing(thing);
    ask();
  });
}
const limited = size => Math.min(1.2, Math.max(.08, size));
const isOutside = ({x, y}) => x < -.02 || x > 1.02 || y < -.02 || y > 1.02;
const TOOLS = {
  smaller: thing => { thing.size = limited(thing.size / 1.12); }, larger: thing => { thing.size = limited(thing.size * 1.12); },
  left: thing => { thing.angle -= 10; }, right: thing => { thing.angle += 10; }, mirror: thing => { thing.mirrored = !thing.mirrored; },
};
const KEYS = {"-": "smaller", "+": "larger", "=": "larger", "[": "left", "]": "right", m: "mirror", Delete: "remove", Backspace: "remove"};
function useTool(name, thing) {
  if (name === "remove") {
    const next = things[things.indexOf(thing) + 1] || things[things.indexOf(thing) - 1];
    removeThing(thing);
    (next ? next.element : $("tray").firstChild).focus();
  } else {
    TOOLS[name](thing);
    placeThing(thing);
  }
  ask();
}
function keyOn(event, thing) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? .1 : .02;
  if (event.key in ARROWS) {
    const [down, right] = ARROWS[event.key];
    thing.x = Math.min(1, Math.max(0, thing.x + right * step));
    thing.y = Math.min(1, Math.max(0, thing.y + down * step));
    placeThing(thing);
    ask();
  } else if (event.key in KEYS) useTool(KEYS[event.key], thing);
  else return;
  event.preventDefault();
}
// Where there is most room: what is added without a pointer goes there.
function freePlace() {
  let best = [.5, .5], most = -1;
  for (const y of [.5, .3, .7]) for (const x of [.3, .7, .5, .2, .8]) {
    const room = Math.min(1, ...things.map(thing => Math.hypot(thing.x - x, thing.y - y)));
    if (room > most + .01) [best, most] = [[x, y], room];
  }
  return best;
}

/* -------------------------------------------------------------- the ground, and the pen on it */

function setBase(next) {
  base = {color: PLAIN[0], image: null, name: "", width: 1, height: 1, ...next};
  const scale = UPLOADED / Math.max(base.width, base.height);
  ground.width = Math.max(1, Math.round(base.width * scale));
  ground.height = Math.max(1, Math.round(base.height * scale));
  stage.style.aspectRatio = `${ground.width} / ${ground.height}`;
  drawGround();
  things.forEach(placeThing);
  for (const button of $("grounds").querySelectorAll("[data-ground]")) button.setAttribute("aria-pressed", button.dataset.ground === (base.name || base.color));
}
function drawGround(context = ground.getContext("2d")) {
  const {width, height} = ground;
  context.fillStyle = base.color;
  context.fillRect(0, 0, width, height);
  if (base.image) context.drawImage(base.image, 0, 0, width, height);
  context.lineCap = context.lineJoin = "round";
  for (const {color, points} of strokes) {
    context.strokeStyle = color;
    context.lineWidth = .025 * Math.min(width, height);
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x * width, y * height));
    if (points.length === 1) context.lineTo(points[0][0] * width + .1, points[0][1] * height);
    context.stroke();
  }
}
function placeOn(context, {drawing, x, y, size, angle, mirrored, canvas: drawn}) {
  const {width, height} = context.canvas, scale = size * Math.min(width, height) / Math.max(drawing.width, drawing.height);
  context.save();
  context.translate(x * width, y * height);
  context.rotate(angle * Math.PI / 180);
  context.scale(mirrored ? -scale : scale, scale);
  context.imageSmoothingQuality = "high";
  context.drawImage(drawn, -drawing.width / 2, -drawing.height / 2);
  context.restore();
}
function composed() {
  const canvas = make("canvas", {width: ground.width, height: ground.height}), context = canvas.getContext("2d");
  drawGround(context);
  things.forEach(thing => placeOn(context, thing));
  return canvas.toDataURL("image/png").split(",")[1];
}
function startStroke(event) {
  if (event.button) return;
  const drawing = $("pen").getAttribute("aria-pressed") === "true";
  if (!drawing) { choose(null); return; }
  event.preventDefault();
  const box = stage.getBoundingClientRect(), stroke = {color: $("ink").value, points: []};
  strokes.push(stroke);
  const move = e => {
    stroke.points.push([(e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height]);
    drawGround();
  };
  move(event);
  followPointer(event, move, () => ask());
}
async function loadImage(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  return image;
}
// Undo takes back the last stroke, or else brings back what the last new picture, plain ground, or Clear has taken away.
const cleared = [];  // stayed: how many strokes were still there afterwards
function clearStage() {
  choose(null);
  cleared.push({base, things, strokes, stayed: 0});
  things.slice().forEach(removeThing);
  strokes = [];
}
// A plain ground takes the place of a picture alone: drawings and strokes stay.
function takePlain(color) {
  if (base.image) cleared.push({base, things: [], strokes: [...strokes], stayed: strokes.length});
  setBase({color});
  ask();
}
function undo() {
  if (strokes.length > (cleared.at(-1)?.stayed || 0)) strokes.pop();
  else if (cleared.length) {
    const before = cleared.pop();
    things = [...before.things, ...things];
    strokes = before.strokes;
    $("things").prepend(...before.things.map(thing => thing.element));
    setBase(before.base);
  }
  drawGround();
  ask();
}
async function takeSample(name) {
  const image = await loadImage(`${name}.png`);
  clearStage();
  setBase({image, name, width: image.naturalWidth, height: image.naturalHeight});
  ask();
}
// A picture of one's own is decoded by the program, which reads more kinds than a browser and refuses what is none.
async function takeFile(file) {
  if (!file) return;
  if (file.size > served.most_bytes) {  // the server refuses without reading it all, and its answer is lost
    $("status").textContent = `${file.name}: it is too large (at most ${served.most_bytes / 1e6} MB)`;
    return;
  }
  let refused = "it could not be sent";
  try {
    const response = await fetch("picture", {method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}});
    for await (const message of linesOf(response)) {
      if (message.kind === "picture") {
        const image = await loadImage(message.uri);
        clearStage();
        setBase({image, name: "own", width: message.width, height: message.height});
        ask();
        return;
      }
      if (message.refused) refused = message.refused;
    }
  } catch { /* the server is gone: said as it stands above */ }
  $("status").textContent = `${file.name}: ${refused}`;
}

/* ------------------------------------------------------------------------------ asking */

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {value, done} = await reader.read();
    text += value || "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
    if (done) return;
  }
}
let steps = 0;  // tokens of the answer that is being made
let sequence = 0, running = false, isReady = false, lastTook = 0;
const SLOW = 1000;  // milliseconds of an answer: then nothing is asked while something is still being dragged
// The code's values take as long as the figures: they come where they are to be seen, or where code is being written.
let codeIsOld = true;
const wantsCode = () => served.set !== "1" || document.querySelector("details.code[open]") !== null;
const question = () => ({page, prompt: $("ask").value, picture: composed(), only_answer: false, code: true, ...choosing,
  switches: [...switched].map(([name, values]) => [name, values]), off: [...off.values()]});
const send = (name, body) => fetch(name, {method: "POST", body: JSON.stringify(body), headers: {"Content-Type": "application/json"}});
// The only message of a kind that is wanted; an Error that says why if it does not come.
async function single(response, kind) {
  if (!response.ok) throw new Error(`refused (${response.status})`);
  for await (const message of linesOf(response)) {
    if (message.kind === kind) return message;
    if (message.refused) throw new Error(message.refused);
  }
  throw new Error("there is a newer question");
}
// A model of billions of numbers takes its time: how long it has been at it.
function tellTime(mine, start) {
  const timer = setInterval(() => {
    if (mine !== sequence || stage.dataset.answered === String(mine) || !running) { clearInterval(timer); return; }
    const last = lastTook > SLOW ? `; the last answer took ${Math.round(lastTook / 1000)} s` : "";
    const soFar = steps ? `, ${steps} token${steps > 1 ? "s" : ""} so far` : "";
    $("status").textContent = `Computing: ${Math.round((performance.now() - start) / 1000)} s${soFar}${last}.`;
  }, 1000);
}
// onlyAnswer: while something is dragged, one question after the other. Without it the question at once takes the
// place of any other, and all of the page follows.
async function ask(onlyAnswer = false) {
  if (!isReady || (onlyAnswer && (running || lastTook > SLOW))) return;
  const mine = ++sequence, start = performance.now();
  running = true;
  steps = 0;
  stage.dataset.asked = mine;
  tellTime(mine, start);
  let answered = false, overtaken = false;
  try {
    const alsoCode = !told || wantsCode();
    if (!onlyAnswer && !alsoCode) codeIsOld = true;
    const asked = question();
    const response = await send("ask", {...asked, only_answer: onlyAnswer, code: alsoCode});
    if (!response.ok) throw new Error(`refused (${response.status})`);
    for await (const message of linesOf(response)) {
      if (mine !== sequence) return;
      if (message.kind === "step") steps = message.tokens;
      else if (message.kind === "answer") {
        answered = true;
        showAnswer(message, asked, performance.now() - start);
        stage.dataset.answered = mine;
      } else if (message.kind === "page") {
        // The last drawing's words stay until this one's are there.
        if (told && !message.told.masks.found.length) message.told.masks.example = told.masks.example;
        await show({...message.told, ...code, tests});
        if (mine !== sequence) return;
        stage.dataset.shown = mine;
      } else if (message.kind === "code") {
        codeIsOld = false;
        code = {code: message.code, marks: message.marks};
        if (told) {
          Object.assign(told, code);
          drawCode();
        }
      } else if (message.kind === "end" && message.refused) {
        $("status").textContent = message.refused;
      } else if (message.kind === "end" && message.superseded) {
        overtaken = true;  // an older question came there after this one, and took its place
      } else if (message.kind === "end" && !onlyAnswer) {
        await allDrawn;
        if (mine !== sequence) return;
        stage.dataset.coded = mine;
        if (told && !told.masks.found.length) sayAgain();
      }
    }
  } catch (error) {
    if (mine === sequence && !answered) $("status").textContent = `No answer: ${error.message}.`;
  } finally {
    if (mine === sequence) running = false;
  }
  if (overtaken && mine === sequence) await ask(onlyAnswer);
}
// What stands between backticks is code.
const withCode = text => text.split("`").map((part, i) => i % 2 ? make("code", {}, part) : part);
const readable = text => text || "(nothing)";
function showAnswer(message, asked, milliseconds) {
  const change = message.before !== null && !message.stopped;
  lastTook = milliseconds;
  drawChoices(message.choices, asked);
  $("reply").textContent = readable(message.text);
  for (const one of [$("reply"), $("beforeReply")]) one.classList.toggle("locs", message.text.includes("<loc"));
  $("reply").classList.toggle("other", change && message.text !== message.before.text);
  $("beforePart").hidden = !change;
  if (change) {
    $("beforeReply").textContent = readable(message.before.text);
    $("beforeOf").textContent = message.compared;
  }
  const changed = message.compared === "the reference" ? (served.set === "1" ? "changed" : "your code") : `drawn with seed ${asked.seed}`;
  $("afterOf").textContent = message.stopped ? "the reference's answer, because your code does not run" : !change ? "answer" :
    changed + (message.text === message.before.text ? ": the same" : "");
  showProblem(message.stopped, "stopped");
  $("status").textContent = `${message.ended ? "" : "Cut off: the answer reached the limit of tokens. "}Answered in ${milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`}.`;
  const {width, height} = ground, unit = Math.max(width, height) / 100;
  $("found").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const names = [...new Set(message.boxes.map(box => box.label))];
  const place = ([x1, y1, x2, y2]) => ({x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), fill: "none"});
  // The reference's boxes, where they are compared with others, are dashed.
  const theirs = change && message.text !== message.before.text ? message.before.boxes : [];
  fill($("found"), ...message.masks.map(({overlay}) => make("image", {href: overlay, width, height})), ...theirs.map(({box}) => make("rect", {...place(box), stroke: "#0009", "stroke-width": .7 * unit, "stroke-dasharray": 2 * unit})),
    ...message.boxes.flatMap(({label: name, box}) => {
    const color = COLORS[names.indexOf(name) % COLORS.length], [x1, y1] = box;
    return [make("rect", {...place(box), stroke: "#fff", "stroke-width": 1.6 * unit}), make("rect", {...place(box), stroke: color, "stroke-width": unit}),
      label(name, {x: x1 + unit, y: Math.max(4.5 * unit, y1 - 1.4 * unit), fill: color, "font-size": 4.4 * unit, "font-weight": 700,
        stroke: "#fff", "stroke-width": .9 * unit, "paint-order": "stroke"})];
  }));
}
// What went wrong with the code stays until it goes right; said once if two tell it.
const problems = {};
function showProblem(text, from) {
  problems[from] = text || "";
  const said = [...new Set(Object.values(problems).filter(Boolean))].join("\n\n");
  if ($("problem").textContent !== said) $("problem").textContent = said;
  $("problem").hidden = !said;
}

/* -------------------------------------------------------- how a token is chosen, from what */

const choosing = {temperature: 0, top_p: 1, seed: 0};
let choices = [], chosenWith = choosing, chosenToken = 0;  // of the answer that is shown: the dials may be elsewhere
function drawChoices(next, asked) {
  const sameLength = choices.length === next.length;
  [choices, chosenWith] = [next, asked];
  if (!sameLength) chosenToken = 0;
  chosenToken = Math.max(0, Math.min(chosenToken, choices.length - 1));
  const buttons = choices.map(({tokens, drawn}, i) => make("button", {class: "token answer", ariaLabel: `Token ${i}: ${visible(tokens[drawn][0])}`}, visible(tokens[drawn][0])));
  fill($("choiceTokens"), ...buttons);
  const select = choice(buttons, buttons.map((_, i) => [0, i]), i => { chosenToken = i; select(i); drawChoice(); });
  select(chosenToken);
  drawChoice();
}
function drawDials() {
  $("temperatureIs").textContent = choosing.temperature ? choosing.temperature.toFixed(1) : "0";
  $("topPIs").textContent = choosing.top_p.toFixed(2);
  for (const id of ["topP", "seed", "drawAgain"]) $(id).disabled = !choosing.temperature;
}
// Two bars for each token: what the model gave it, and what it had when one was drawn. What was cut is striped.
function drawChoice() {
  if (!choices.length) {
    fill($("choice"));
    $("choiceWords").textContent = "This code chooses its tokens without sample_next_token, so it could not be watched.";
    return;
  }
  const {greedy, drawn, tokens, rest, kept, mass} = choices[chosenToken], V = tokens.length + rest[0];
  // Many that are nearly alike have a few percent each: then the longest bar is not all of it.
  const longest = Math.max(...tokens.flatMap(([, ...shares]) => shares)), whole = longest < .4 ? longest : 1;
  const row = ([name, given, shaped, left], isDrawn, isRest) => {
    const cut = !greedy && left === 0 && shaped > 0, wide = part => ({width: `${100 * Math.min(1, part / whole)}%`});
    const bars = make("td", {class: "both"}, make("i", {class: "given", style: wide(given)}), make("i", {class: cut ? "cut" : "left", style: wide(cut ? shaped : left)}));
    return make("tr", {class: isDrawn ? "drawn" : isRest ? "rest" : ""}, make("th", {scope: "row"}, isRest ? name : tokenChip({text: name, kind: "answer"})),
      bars, make("td", {class: "n"}, percent(given)), make("td", {class: "n"}, cut ? `${percent(shaped)} cut` : left ? percent(left) : "–"));
  };
  fill($("choice"), make("thead", {}, make("tr", {}, ...["Token", "", "The model", greedy ? "Chosen" : "Drawn from"].map((text, i) => make("th", {scope: "col", class: i > 1 ? "n" : ""}, text)))),
    make("tbody", {}, ...tokens.map((token, i) => row(token, i === drawn, false)), row([`${grouped(rest[0])} others`, ...rest.slice(1)], false, true)));
  const said = visible(tokens[drawn][0]);
  fill($("choiceWords"), ...greedy ? ["At temperature 0 nothing is drawn: the likeliest token is taken, here ", make("code", {}, said), ". Raise the temperature, and each token is drawn by chance."]
    : [`The scores divided by ${chosenWith.temperature.toFixed(1)}, then softmax` + (chosenWith.top_p < 1 ? `. Top-p ${chosenWith.top_p.toFixed(2)} keeps ${grouped(kept)} of ${grouped(V)} tokens, which ` +
      `have ${percent(mass)} together, and cuts the rest` : `; top-p 1 cuts ${kept < V ? `only what is too small to count` : "nothing"}`) + `. From what is left, seed ${chosenWith.seed} drew `, make("code", {}, said), "."], ...(whole < 1 ? [` The longest bar is ${percent(whole)}.`] : []));
}
function listenToDials() {
  const dial = (id, key) => {
    // While it moves the answer alone is asked for, as for a drawing that is dragged.
    $(id).addEventListener("input", () => { choosing[key] = Number($(id).value); drawDials(); ask(true); });
    $(id).addEventListener("change", () => ask());
  };
  dial("temperature", "temperature");
  dial("topP", "top_p");
  drawDials();
  const seed = value => {
    choosing.seed = Math.min(999999, Math.max(0, Math.round(value) || 0));
    $("seed").value = choosing.seed;
    ask();
  };
  $("seed").addEventListener("change", () => seed(Number($("seed").value)));
  $("drawAgain").addEventListener("click", () => seed(choosing.seed + 1));
}

/* -------------------------------------------------------- a drawing's mask, in 16 words */

// What of a thing is to be seen: white on black, without what lies over it.
function maskOf(thing) {
  const canvas = make("canvas", {width: ground.width, height: ground.height}), context = canvas.getContext("2d");
  things.slice(things.indexOf(thing)).forEach((one, i) => {
    context.globalCompositeOperation = i ? "destination-out" : "source-over";
    placeOn(context, one);
  });
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return new Promise(done => canvas.toBlob(done, "image/png"));
}
// The answer has no words: those of the chosen drawing are shown, as a model that knows it would write them.
async function sayAgain() {
  const thing = things.includes(chosenThing) ? chosenThing : things[0], asked = told;
  if (!told.masks.codewords) return;
  if (!thing) delete told.masks.example;
  if (thing) {
    try {
      const body = await maskOf(thing);
      const words = await single(await fetch("words", {method: "POST", body, headers: {"Content-Type": "application/octet-stream"}}), "words");
      if (told !== asked) return;
      told.masks.example = {...words, label: thing.drawing.name, picture: picture.given};
    } catch (error) {
      if (told !== asked) return;
      told.masks.notes = [`${thing.drawing.name}: ${error.message}`];
    }
  }
  drawMasks();
}
askShape = async (words, box, size) => single(await send("shape", {page, words, box, size}), "shape");
askNumbers = async wanted => single(await send("numbers", {...question(), wanted}), "numbers");

/* -------------------------------------------------------------------------------- what if */

function button(text, onclick, properties = {}) {
  return make("button", {type: "button", onclick, ...properties}, text);
}
function drawSwitches(all) {
  $("whatIf").hidden = !all.length;
  fill($("switches"), ...all.map(({name, title, question, lines, parameters}) => {
    const values = Object.fromEntries(parameters.map(([key, , value]) => [key, value]));
    const box = make("input", {type: "checkbox", id: `switch-${name}`, onchange: () => {
      box.checked ? switched.set(name, values) : switched.delete(name);
      row.classList.toggle("on", box.checked);
      drawOff();
      ask();
    }});
    const numbers = parameters.map(([key, count]) => make("label", {class: "inline"}, `${key} `, make("select", {onchange: event => {
      values[key] = Number(event.target.value);
      if (box.checked) ask();
    }}, ...Array.from({length: count}, (_, i) => new Option(i, i, false, i === values[key])))));
    const code = lines.map(({where, real, changed}) => make("div", {class: "change"}, make("span", {class: "place"}, where),
      ...real.map(line => make("code", {class: "real"}, line)), ...changed.map(line => make("code", {class: "new"}, line))));
    const row = make("div", {class: "switch"}, make("label", {}, box, title), ...numbers, make("div", {class: "inside"}, make("p", {}, ...withCode(question)), ...code));
    return row;
  }));
}
function drawOff() {
  const clear = (text, undo) => button(`${text} ×`, undo, {class: "chip", ariaLabel: `${text}: switch on again`});
  fill($("offList"), ...[...off].map(([key, [part, layer, head]]) => clear(`${part}, layer ${layer}${head === null ? "" : `, head ${head}`} off`, () => setOff(key))),
    ...[...switched.keys()].map(name => clear(name, () => $(`switch-${name}`).click())));
  for (const one of document.querySelectorAll(".off")) one.setAttribute("aria-pressed", off.has(one.dataset.off));
  $("whatIfWords").textContent = switched.size ? `${switched.size} ${switched.size > 1 ? "switches are" : "switch is"} on.` :
    "Change a line of the reference and see what becomes of the answer.";
}
function setOff(key, value) {
  off.has(key) ? off.delete(key) : off.set(key, value);
  drawOff();
  ask();
}
offSwitch = (part, layer, head) => {
  const key = `${part} ${layer} ${head}`, name = `${part === "tower" ? "tower" : "decoder"}, layer ${layer}${head === null ? "" : `, head ${head}`}`;
  const one = button("off", () => setOff(key, [part, layer, head]), {class: "off", ariaLabel: `${name}: off`, title: `Answer without ${name}`});
  one.dataset.off = key;
  one.setAttribute("aria-pressed", "false");
  return one;
};

/* ---------------------------------------------------------------------------------- start */

let code = {code: {parts: {}, units: {}}, marks: {}}, tests = [], typing;
const SETS = {0: "your files", mixed: "your code where it is solved", tried: "your code where you tried"};
function listen() {
  const events = new EventSource("events");
  events.addEventListener("message", event => {
    const message = JSON.parse(event.data);
    if (message.kind === "ready") {
      if (!isReady || !$("switches").childElementCount) drawSwitches(message.switches);
      isReady = true;
      ask();
    } else if (message.kind === "changed") ask();
    else if (message.kind === "problem") {
      if (message.text) delete problems.stopped;
      showProblem(message.text, "process");
    } else if (message.kind === "tests") {
      tests = message.tests;
      if (told) { told.tests = tests; drawCode(); }
    }
  });
  events.addEventListener("error", () => { $("status").textContent = "The program does not respond. Was it stopped?"; });
}
function drawTray() {
  fill($("tray"), ...served.drawings.map(drawing => {
    const size = 44, scale = size / Math.max(drawing.width, drawing.height);
    const canvas = make("canvas", {width: 2 * size, height: 2 * size});
    canvas.getContext("2d").drawImage(sheet, drawing.x, drawing.y, drawing.width, drawing.height, size - drawing.width * scale, size - drawing.height * scale,
      2 * drawing.width * scale, 2 * drawing.height * scale);
    const one = make("button", {type: "button", ariaLabel: `Add: ${drawing.name}`, title: drawing.name}, canvas);
    let dragged = false;
    one.addEventListener("click", event => {
      if (dragged && event.detail) return;  // 0: by keyboard
      choose(addThing(drawing, ...freePlace()));
      ask();
    });
    one.addEventListener("pointerdown", event => {
      if (event.button) return;
      event.preventDefault();
      one.focus({preventScroll: true});
      dragged = false;
      const follow = e => {
        if (e.pointerId !== event.pointerId || Math.hypot(e.clientX - event.clientX, e.clientY - event.clientY) < 6) return;
        stop();
        dragged = true;
        const box = stage.getBoundingClientRect(), thing = addThing(drawing, (e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height);
        choose(thing);
        drag(e, thing, "move");
      };
      const ends = ["pointerup", "pointercancel"];  // canceled where a finger scrolls the tray
      const stop = () => { removeEventListener("pointermove", follow); ends.forEach(name => removeEventListener(name, stop)); };
      addEventListener("pointermove", follow);
      ends.forEach(name => addEventListener(name, stop));
    });
    return one;
  }));
}
function drawGrounds() {
  const named = (name, text, onclick, ...inside) => {
    const one = make("button", {type: "button", ariaLabel: text, title: text, onclick}, ...inside);
    one.dataset.ground = name;
    one.setAttribute("aria-pressed", "false");
    return one;
  };
  const file = make("input", {type: "file", accept: "image/*", class: "skip", id: "file", ariaLabel: "A picture of your own", onchange: () => {
    takeFile(file.files[0]);
    file.value = "";  // or choosing the same one again would be no change
  }});
  fill($("grounds"),
    ...PLAIN.map((color, i) => named(color, `Plain ground ${i + 1}`, () => takePlain(color), make("i", {style: {background: color}}))),
    ...served.samples.map(name => named(name, `Sample: ${name}`, () => takeSample(name), make("img", {src: `${name}.png`, alt: ""}))),
    make("label", {class: "chip", htmlFor: "file"}, "Your picture…"), file);
}
function drawSuggestions() {
  const listed = ["caption en", "caption de", "detect dog", "segment dog", "answer en how many dogs are there?", "answer en is there a cat?", "answer en where is the dog?"];
  fill($("suggestions"), ...listed.map(text => button(text, () => { $("ask").value = text; ask(); }, {class: "chip"})));
}
async function startLive() {
  served = await (await fetch("facts")).json();
  sheet = await loadImage("stage.png");
  $("whose").textContent = served.model + (served.set === "1" ? "" : ` with ${SETS[served.set]}`);
  inSightFirst = true;
  $("choosing").open = innerWidth > 760;
  listenToDials();
  drawTray();
  drawGrounds();
  drawSuggestions();
  setBase({color: PLAIN[0]});
  addThing(served.drawings[0], .3, .52, .38);
  choose(null);
  $("ask").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(ask, 180); });
  $("tools").addEventListener("click", event => {
    const name = event.target.closest("[data-tool]")?.dataset.tool;
    if (name && chosenThing) useTool(name, chosenThing);
  });
  $("pen").addEventListener("click", () => {
    const on = $("pen").getAttribute("aria-pressed") !== "true";
    $("pen").setAttribute("aria-pressed", on);
    stage.classList.toggle("drawing", on);
  });
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", () => {
    if (things.length || strokes.length) clearStage();
    drawGround();
    ask();
  });
  stage.addEventListener("pointerdown", startStroke);
  for (const name of ["dragover", "drop"]) document.addEventListener(name, event => event.preventDefault());
  stage.addEventListener("drop", event => takeFile(event.dataTransfer.files[0]));
  document.addEventListener("toggle", event => {
    if (event.target.matches("details.code") && event.target.open && codeIsOld) ask();
  }, true);
  document.body.classList.add("is-live");
  document.documentElement.dataset.live = "yes";
  listen();
}
startLive();
