// Looks at every photograph before the editor gets it. The editor itself says nothing of a file that it can't show, and
// waits for ever for an upload that the server refuses. Runs in a gr.HTML, which gives `trigger` and `props`.

const editor = () => document.querySelector("#editor"); // which may come to the page after this
// To one decimal, upwards, as the page says it.
const megapixels = (width, height) => Math.ceil((width * height) / 1e5) / 10;
let letThrough = false;

function refuse(message) {
  trigger("stop", { message });
}

// The largest texture that this browser's graphics can hold, which is what the editor paints on.
function longestSide() {
  const context = document.createElement("canvas").getContext("webgl");
  return context ? context.getParameter(context.MAX_TEXTURE_SIZE) : Infinity;
}

// Width and height by the file's header; nothing is decoded yet, so a bomb does no harm.
function sizeOf(file) {
  return new Promise((resolve) => {
    const image = new Image();
    const address = URL.createObjectURL(file);
    const done = (size) => {
      URL.revokeObjectURL(address);
      resolve(size);
    };
    image.onload = () => done([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => done(null);
    image.src = address;
  });
}

// Why a file can't be taken, in a sentence; null if it can.
async function problemOf(file) {
  const name = file.name || "The file";
  if (file.size > props.most_bytes) {
    return `${name} has ${(file.size / 1e6).toFixed(0)} megabytes, and this page takes up to ${(props.most_bytes / 1e6).toFixed(0)}: save it smaller.`;
  }
  const size = file.type.startsWith("image/") && file.type !== "image/svg+xml" ? await sizeOf(file) : null;
  if (!size) return `${name} is not an image that this browser can show: use JPEG, PNG or WebP.`;
  if (size[0] * size[1] > props.megapixels * 1e6) {
    return `${name} has ${megapixels(...size).toFixed(1)} megapixels, and this page takes up to ${props.megapixels}: reduce it, or fill it on the command line.`;
  }
  const longest = longestSide();
  if (Math.max(...size) > longest) {
    return `${name} is ${size[0]} x ${size[1]} pixels, and this browser can edit up to ${longest} on a side: reduce it.`;
  }
  try {
    (await createImageBitmap(file)).close();
  } catch (error) {
    return `${name} can't be decoded, it may be truncated: ${error.message}`;
  }
  return null;
}

// Through the editor's own input, once it has been looked at.
async function take(file) {
  const problem = await problemOf(file);
  const input = editor()?.querySelector("input[type=file]");
  if (problem || !input) {
    if (input) input.value = ""; // so that the same name can be chosen again
    refuse(problem || "The editor takes no photograph now: clear it first.");
    return;
  }
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  letThrough = true;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  letThrough = false;
  trigger("upload", { name: file.name });
}

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

const inEditor = (event) => event.target instanceof Element && Boolean(editor()?.contains(event.target));

document.addEventListener(
  "change",
  (event) => {
    if (letThrough || !inEditor(event) || event.target.type !== "file" || !event.target.files.length) return;
    stop(event);
    take(event.target.files[0]);
  },
  true,
);

document.addEventListener(
  "drop",
  (event) => {
    if (!inEditor(event) || !event.dataTransfer.files.length) return;
    stop(event);
    take(event.dataTransfer.files[0]);
  },
  true,
);

// Ctrl + V anywhere on the page but in a text field.
document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (!file || event.target.matches?.("input, textarea")) return;
  stop(event);
  take(file);
});

// Where a page is as long as on a phone, what a click brings about is elsewhere on it.
const brings = { fill: "#result", "send-back": "#editor", undo: "#editor", redo: "#editor", examples: "#editor" };
document.addEventListener("click", (event) => {
  const from = Object.keys(brings).find((id) => event.target instanceof Element && event.target.closest(`#${id}`));
  if (from && matchMedia("(max-width: 768px)").matches) document.querySelector(brings[from])?.scrollIntoView();
});

// The page's buttons to choose and to paste, and the editor's camera.
document.addEventListener(
  "click",
  async (event) => {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    const isLive = Boolean(editor()?.querySelector("video")?.videoWidth); // a camera that is not takes no picture
    if (button?.getAttribute("aria-label") === "capture photo" && isLive) trigger("upload", { name: "camera.png" });
    if (button?.id === "choose") editor()?.querySelector("input[type=file]")?.click();
    if (button?.id !== "paste") return;
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return take(new File([await item.getType(type)], "pasted.png", { type }));
      }
      refuse("There is no picture in the clipboard.");
    } catch {
      refuse("The browser does not let the page read the clipboard: press Ctrl + V.");
    }
  },
  true,
);

element.dataset.watching = "editor"; // from here on nothing passes unseen
