// Does something again and again, until the page is left; not while nobody looks, and never twice at once.

/**
 * @param {(signal: AbortSignal) => Promise<void>} work
 * @param {number} every in milliseconds
 * @param {AbortSignal} leaving
 */
export function poll(work, every, leaving) {
  let timer = 0;
  let running = false;
  const round = async () => {
    clearTimeout(timer);
    if (leaving.aborted || running) return;
    running = true;
    try {
      if (!document.hidden) await work(leaving);
    } catch {
      // `work` shows its own faults; what is left here is a page that was left meanwhile.
    } finally {
      running = false;
      if (!leaving.aborted) timer = window.setTimeout(round, every);
    }
  };
  const seen = () => { if (!document.hidden) round(); };
  document.addEventListener("visibilitychange", seen);
  leaving.addEventListener("abort", () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  });
  timer = window.setTimeout(round, every);
  return { now: round };
}
