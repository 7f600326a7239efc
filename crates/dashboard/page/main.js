// The page: the streams of the boxes and of the board, while it is its turn to have them, and when what they tell is drawn.
//
// Events only change numbers and bounded lists; the page is drawn at most once a frame, and the costly parts of it less
// often, so that thousands of events a second cost no more than a few.

import { Board } from "./board.js";
import { BoardChoice } from "./board-choice.js";
import { BoardView } from "./board-view.js";
import { Chart } from "./chart.js";
import { Feed } from "./feed.js";
import { RequestView } from "./request-view.js";
import { ResourcesView } from "./resources-view.js";
import { StatusView } from "./status-view.js";
import { Turn } from "./turn.js";

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
const status = new StatusView(() => turn.toggle());
let turn;

function run() {
  for (const stream of [feed, board]) stream.run(turn?.state === "mine");
  draw();
}

function draw() {
  frame ??= requestAnimationFrame(drawFrame);
}

function drawFrame(now) {
  frame = undefined;
  status.render(feed.subscription, feed.figures, turn);
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
new BoardChoice((group) => {
  boardView.clear();
  board.ask(group);
});
turn = new Turn(run);
run();
setInterval(everySecond, 1000);
