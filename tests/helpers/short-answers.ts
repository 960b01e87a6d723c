import { API_LIMITS } from '../../src/limits.js';

/** For tests of clients that are too slow. Imported before the API, which reads its limits when it is loaded. */
export const shortAnswerMs = 1000;
(API_LIMITS as { answerMs: number }).answerMs = shortAnswerMs;
