// A result as arrays that can be searched by time. Knows nothing of the page.

/** The words of all segments in flat arrays, in the transcript's order, and searches over them. */
export function createScore(result) {
  const { segments } = result;
  const ids = [...new Set(segments.map((segment) => segment.speaker.speaker_id))].sort();
  const count = segments.reduce((sum, segment) => sum + segment.words.length, 0);
  const words = {
    count,
    text: Array.from({ length: count }),
    start: new Float64Array(count),
    end: new Float64Array(count),
    db: new Float32Array(count),
    hz: new Float32Array(count), // 0: not voiced
    sure: new Float32Array(count), // 0-1, NaN: unknown
    segment: new Uint32Array(count),
  };
  const first = new Uint32Array(segments.length + 1);
  let i = 0;
  segments.forEach((segment, number) => {
    first[number] = i;
    for (const word of segment.words) {
      words.text[i] = word.word;
      words.start[i] = word.start;
      words.end[i] = word.end;
      words.db[i] = word.volume_db;
      words.hz[i] = word.voiced ? word.pitch_hz : 0;
      words.sure[i] = word.confidence ?? NaN;
      words.segment[i++] = number;
    }
  });
  first[segments.length] = count;
  const order = Uint32Array.from(words.start.keys()).sort((a, b) => words.start[a] - words.start[b]);
  const rank = new Uint32Array(count);
  order.forEach((word, place) => (rank[word] = place));
  const sorted = Float64Array.from(order, (word) => words.start[word]);
  const longest = words.end.reduce((most, end, word) => Math.max(most, end - words.start[word]), 0);
  const longestSegment = segments.reduce((most, { start_time, end_time }) => Math.max(most, end_time - start_time), 0);
  const begins = Float64Array.from(segments, (segment) => segment.start_time);
  const spoken = words.hz.filter((hz) => hz > 0).sort();

  const score = {
    segments,
    first,
    words,
    /** Who speaks, in the order of the lanes: {ids, name (null: none was given), number}. */
    speakers: [],
    /** Of each segment, its speaker's place in `speakers`. */
    speaker: new Uint16Array(segments.length),
    /** Call speakers by `names`, by speaker id. Ids with one name are one speaker. */
    name(names) {
      const called = new Map();
      ids.forEach((id, place) => {
        const name = names[id] ?? null;
        if (!called.has(name ?? id)) called.set(name ?? id, { ids: [], name, number: place + 1 });
        called.get(name ?? id).ids.push(id);
      });
      score.speakers = [...called.values()];
      const places = new Map(score.speakers.flatMap((speaker, place) => speaker.ids.map((id) => [id, place])));
      score.speaker = Uint16Array.from(segments, (segment) => places.get(segment.speaker.speaker_id));
    },
    duration: Math.max(
      result.duration,
      words.end.reduce((most, end) => Math.max(most, end), 0),
      0.1,
    ),
    /** The range of most voiced words, in Hz: the 2nd to the 98th percentile with a margin. */
    pitch: spoken.length
      ? [spoken[Math.floor(spoken.length * 0.02)] * 0.9, spoken[Math.floor(spoken.length * 0.98)] * 1.1]
      : [80, 400],
    /** The last word that begins at or before `time`; before the first word, the first. */
    at: (time) => order[Math.max(0, after(sorted, time) - 1)] ?? -1,
    /** The word `steps` places after `word`, by their begins. */
    beside: (word, steps) => order[Math.min(count - 1, Math.max(0, rank[word] + steps))] ?? -1,
    /** All words that sound between the two times, and perhaps a few beside them. */
    *within(from, until) {
      for (let place = after(sorted, from - longest); place < count && sorted[place] <= until; place++)
        yield order[place];
    },
    *segmentsWithin(from, until) {
      for (let n = after(begins, from - longestSegment - 1e-9); n < segments.length && begins[n] <= until; n++) yield n;
    },
  };
  score.name({});
  return score;
}

/** How many of the sorted `values` are at most `limit`. */
function after(values, limit) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
