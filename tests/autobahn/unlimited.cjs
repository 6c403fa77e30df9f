// Options of ws for both ends: compression on, all limits off.
"use strict";

module.exports = {
  perMessageDeflate: true,
  maxPayload: 0,
  maxFragments: 0,
  maxBufferedChunks: 0,
  maxPendingAutoPongs: 0,
};
