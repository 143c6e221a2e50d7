// An image from a file, the clipboard, a drag, the camera or an index: as the browser shows it, and as it is sent.

import { preview } from "./api.js";

/** {name, url, width, height, source}: `url` is shown, `source` is the file itself as a data URL. */
export async function opened(file, name = file.name || "image") {
  const source = await dataURL(file);
  const shown = (await size(file)) ?? (await size(await preview(file)));
  if (!shown) throw new Error("This image cannot be shown.");
  return { name, source, ...shown };
}

/** What a server reads by its content: the type that a system gives a file may be missing or wrong. */
function dataURL(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:image/any;base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    reader.onerror = () => reject(new Error("This file cannot be read."));
    reader.readAsDataURL(file);
  });
}

/** Null where the browser does not know the format. */
async function size(file) {
  const image = new Image();
  const url = URL.createObjectURL(file);
  image.src = url;
  try {
    await image.decode();
    return { url, width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

/** Calls `take(file)` for what is dropped or pasted anywhere on the page. */
export function listen(take) {
  const files = (transfer) => [...(transfer?.files ?? [])];
  let depth = 0;
  const over = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && over(++depth > 0));
  addEventListener("dragleave", (event) => event.dataTransfer.types.includes("Files") && over(--depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over((depth = 0));
    files(event.dataTransfer).slice(0, 1).forEach(take);
  });
  addEventListener("paste", (event) => {
    const found = files(event.clipboardData).filter((file) => file.type.startsWith("image/"));
    if (found.length) event.preventDefault();
    found.slice(0, 1).forEach(take);
  });
}

/** A still of the camera, by the dialog of the page; null where it is closed without one. */
export async function photograph({ dialog, video, take, close }) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  video.srcObject = stream;
  dialog.showModal();
  try {
    const taken = await new Promise((resolve) => {
      take.onclick = () => resolve(true);
      close.onclick = dialog.onclose = () => resolve(false);
    });
    if (!taken || !video.videoWidth) return null;
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    dialog.close();
  }
}
