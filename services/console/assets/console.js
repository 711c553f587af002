// Live pictures, and the judgement of what is live. The age of a picture is judged here, in the browser: what the
// server said it was when asked for, plus all the time since the question. A page that has lost its server must not
// look alive.
"use strict";
(() => {
  const FRESH_MS = 1000; // an older picture never looks live
  const POLL_MS = 250;
  const PART_POLL_MS = 1000;
  const ANSWER_MS = 1500; // no answer for so long = no connection
  const DATA_MS = 3000; // the page's own clock, written by the server, must move
  const JUDGE_MS = 100;

  // performance.now() stands still while the computer sleeps, Date.now() does not: the larger step counts.
  const instant = () => ({ steady: performance.now(), wall: Date.now() });
  const msSince = (then) => Math.max(performance.now() - then.steady, Date.now() - then.wall);
  const words = (ms) => {
    const s = Math.floor(ms / 1000);
    return s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`;
  };

  const began = instant();
  let lastAnswer = null; // when the question was asked that was answered last
  let beat = { text: "", since: began };
  const screens = [];

  class Screen {
    constructor(element) {
      this.element = element;
      this.canvas = element.querySelector("canvas");
      this.kind = element.dataset.kind;
      this.url = `/live/${element.dataset.camera}.jpg?kind=${this.kind}`;
      this.busy = false;
      this.shown = null; // {ageMs, asked} of the picture on the screen
    }

    async poll() {
      if (this.busy) return;
      this.busy = true;
      const asked = instant();
      try {
        const answer = await fetch(this.url, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
        const picture = answer.ok ? await createImageBitmap(await answer.blob()) : null;
        lastAnswer = asked;
        if (picture) this.draw(picture, Number(answer.headers.get("X-Age-Ms")), asked);
      } catch (error) {
        // no answer, or no picture in it: what is on the screen grows old, and judge() sees it
      } finally {
        this.busy = false;
      }
    }

    draw(picture, ageMs, asked) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
      this.canvas.getContext("2d").drawImage(picture, 0, 0);
      picture.close();
      this.shown = { ageMs, asked };
      this.judge(connected());
    }

    ageMs() {
      return this.shown ? this.shown.ageMs + msSince(this.shown.asked) : Infinity;
    }

    judge(isConnected) {
      if (this.kind === "part") return this.judgePart(isConnected);
      const age = this.ageMs();
      const live = isConnected && age <= FRESH_MS;
      this.element.classList.toggle("stale", !live);
      this.element.querySelector(".badge").textContent = live ? "LIVE" : this.complaint(isConnected, age);
    }

    complaint(isConnected, age) {
      if (!isConnected) return this.shown ? `NO CONNECTION ${words(age)}` : "NO CONNECTION";
      return this.shown ? `STALE ${words(age)}` : "NO PICTURE";
    }

    judgePart(isConnected) {
      const text = this.element.parentElement.querySelector("b");
      this.element.classList.toggle("stale", !isConnected);
      text.textContent = this.shown ? `${words(this.ageMs())} ago` : "none yet";
    }
  }

  function connected() {
    const answered = msSince(lastAnswer ?? began) <= ANSWER_MS + POLL_MS;
    const data = msSince(beat.since) <= DATA_MS;
    return Boolean(window.socket?.connected) && lastAnswer !== null && answered && data;
  }

  function judge() {
    const text = document.getElementById("beat")?.textContent ?? "";
    if (text !== beat.text) beat = { text, since: instant() };
    const isConnected = connected();
    document.body.classList.toggle("lost", !isConnected);
    screens.forEach((screen) => screen.judge(isConnected));
  }

  function find() {
    document.querySelectorAll("[data-camera]").forEach((element) => {
      if (screens.some((screen) => screen.element === element)) return;
      const screen = new Screen(element);
      screens.push(screen);
      setInterval(() => screen.poll(), screen.kind === "part" ? PART_POLL_MS : POLL_MS);
    });
  }

  new MutationObserver(find).observe(document, { childList: true, subtree: true });
  document.addEventListener("visibilitychange", judge);
  setInterval(judge, JUDGE_MS);
})();
