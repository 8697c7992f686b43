// Asks a server as programs in JavaScript do, and prints what each client has read, as JSON.
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const [url, prompt] = process.argv.slice(2);
const messages = [{ role: "user", content: prompt }];
const settings = { model: "stories", temperature: 0, max_tokens: 24 };
const read = {};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const whole = await openai.chat.completions.create({ ...settings, messages });
read["openai, whole"] = whole.choices[0].message.content;
let text = "";
const chunks = await openai.chat.completions.create({ ...settings, messages, stream: true });
for await (const chunk of chunks) text += chunk.choices[0]?.delta?.content ?? "";
read["openai, streamed"] = text;
const runner = openai.chat.completions.stream({ ...settings, messages });
read["openai, accumulated"] = (await runner.finalChatCompletion()).choices[0].message.content;
const vectors = await openai.embeddings.create({ model: "stories", input: "a boat" });
read.dimensions = vectors.data[0].embedding.length;
try {
  await openai.chat.completions.create({ ...settings, messages, temperature: 9 });
} catch (error) {
  read["openai, refused"] = `${error.status} ${error.param}`;
}

const anthropic = new Anthropic({ baseURL: url, authToken: "none", maxRetries: 0 });
const message = await anthropic.messages.create({ ...settings, messages });
read["anthropic, whole"] = message.content[0].text;
const stream = anthropic.messages.stream({ ...settings, messages });
const final = await stream.finalMessage();
read["anthropic, streamed"] = final.content[0].text;
read["anthropic, tokens"] = final.usage.output_tokens;

const provider = createOpenAICompatible({ name: "edgellm", baseURL: `${url}/v1` });
const asked = { model: provider("stories"), prompt, temperature: 0, maxOutputTokens: 24 };
read["ai, whole"] = (await generateText(asked)).text;
text = "";
for await (const part of streamText(asked).textStream) text += part;
read["ai, streamed"] = text;

console.log(JSON.stringify(read));
