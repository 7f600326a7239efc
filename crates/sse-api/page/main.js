// The page: two streams, and when what they tell is drawn. Two are two of the six connections that a browser opens to one
// host.
//
// Events only change numbers and bounded lists; the page is drawn at most once a frame, and the costly parts of it less
// often, so that thousands of events a second cost no more than a few.

import { Board } from "./board.js";
import { BoardView } from "./board-view.js";
import { Chart } from "./chart.js";
import { Feed } from "./feed.js";
import { RequestView } from "./request-view.js";
import { ResourcesView } from "./resources-view.js";
import { StatusView } from "./status-view.js";

/** Milliseconds between two drawings of the lists. */
const LISTS = 250;

let frame;
let listsAt = 0;
let later;

const resources = new ResourcesView((type) => chart.colourOf(type));
const feed = new Feed(resources, draw);
const chart = new Chart(feed.rates);
const board = new Board(draw);
const boardView = new BoardView(board);
const status = new StatusView(pauseOrResume);

function pauseOrResume() {
  const paused = feed.subscription.state === "paused";
  for (const { subscription } of [feed, board]) {
    if (paused) subscription.resume();
    else subscription.pause();
  }
}

function draw() {
  frame ??= requestAnimationFrame(drawFrame);
}

function drawFrame(now) {
  frame = undefined;
  status.render(feed.subscription, feed.figures);
  if (now - listsAt >= LISTS) {
    listsAt = now;
    resources.render();
    boardView.render();
  } else {
    later ??= setTimeout(() => {
      later = undefined;
      draw();
    }, LISTS);
  }
}

function everySecond() {
  feed.measure();
  boardView.sample();
  chart.render();
  draw();
}

new RequestView((url) => feed.ask(url));
setInterval(everySecond, 1000);
