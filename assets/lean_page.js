// At the page's very beginning, before Gradio's scripts: they count the seconds of a wait that nobody sees, once a frame and for ever.
// (The timer of the status tracker that covers the page while it loads is never stopped, Gradio 6.31.) Sixty times a
// second that takes 4 % of a core from whatever is computed. We show no such seconds anywhere; all other frames go on.
(() => {
  const WAITING_SECONDS = /\(performance\.now\(\) *- *[\w$.()]+\) *\/ *(1e3|1000)/;
  const nextFrame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) => (WAITING_SECONDS.test(callback) ? 0 : nextFrame(callback));
})();
