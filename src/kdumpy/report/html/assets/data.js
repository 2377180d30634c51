// The data: readable JSON in the page, or the same packed by gzip.
async function unpack(id) {
  const block = byId(id);
  if (block.type === "application/json") return JSON.parse(block.textContent);
  const bytes = Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const loaded = unpack("data");
loaded.then((data) => {
  document.documentElement.dataset.state = "loading";
  data.PID = 0; data.TGID = 1; data.PARENT = 2; data.COMM = 3; data.STATE = 4; data.CPU = 5; data.FLAGS = 6;
  data.RSS = 7; data.IDLE = 8; data.STACK = 9;
  for (const start of [startFlame, startTasks, startLog]) start(data);
  document.documentElement.dataset.state = "ready";
}).catch((error) => {
  document.documentElement.dataset.state = "failed";
  announce(`The data of this page cannot be read: ${error.message}`);
  console.error(error);
});
