"""Greetings and small talk: moods, thanks, jokes, goodbyes, and who the starter model is."""

from __future__ import annotations

from ..chat import Chat, Check

IDENTITY = "I am the starter model of Colloquy, a tiny language model that runs on your own machine."

# Each intent: what a person says, and what may be answered. {n} is the model's own name where a persona gives one.
SMALL_TALK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "greet": (
        ("Hello!", "Hi!", "Hey there!", "Good morning!", "Hello there.", "Hi there!", "Good evening!", "Greetings!", "hello",
         "Hey!",
         "Good day to you!", "Hi, nice to see you.", "hi", "Hello, hello!", "Hey", "Good afternoon!"),
        ("Hello! How are you today?", "Hi there! What shall we talk about?", "Hello, nice to see you! How can I help?",
         "Hi! It is good to hear from you.", "Hello! I am glad you are here. What is on your mind?")),
    "how_are_you": (
        ("How are you?", "How are you today?", "How do you do?", "How is it going?", "Are you well?", "How do you feel?",
         "And how are you?",
         "How are things?"),
        ("I am well, thank you. And you?", "Very well, thanks for asking! How about you?", "I am fine, thank you. How are you?",
         "All is good here. How was your day?")),
    "i_am_fine": (
        ("I am fine, thanks.", "I'm doing well.", "Good, thank you.", "I feel great today!", "Not bad at all.", "I am very well.",
         "Pretty good!", "I'm happy today."),
        ("I am glad to hear that!", "That is good to hear. What shall we do?", "Wonderful! What would you like to talk about?",
         "How nice! Did something good happen?")),
    "sad": (
        ("I am sad.", "I feel sad today.", "I had a bad day.", "I am a bit down.", "I'm not feeling well.", "Today was hard.",
         "I feel lonely.",
         "I am unhappy."),
        ("I am sorry to hear that. Would you like to talk about it?", "Oh, I am sorry. A warm drink and a short walk may help.",
         "That sounds hard. I am here, and I can tell you a story if you like.",
         "I am sorry. Tell me what happened, if you want.")),
    "tired": (
        ("I am tired.", "I'm so tired.", "I did not sleep well.", "I need a rest.", "I am sleepy.", "I could sleep all day.",
         "What a long day.", "I worked too much."),
        ("Then rest a little. The work can wait.", "A short nap may help. Sleep well when you do!",
         "You have earned a rest. Put your feet up and have some tea.", "Go to bed early tonight, and tomorrow will be better.")),
    "bored": (
        ("I am bored.", "I'm bored, what can we do?", "What should I do today?", "There is nothing to do.",
         "Any ideas what to do?",
         "I do not know what to do.", "Entertain me!", "Give me something to do."),
        ("Shall I tell you a short story? Give me a name and an object.",
         "We could play with words: ask me for the opposite of something.",
         "Go for a walk and count the birds. Then tell me how many you saw.", "Draw a small picture of your favourite animal.")),
    "thanks": (
        ("Thank you!", "Thanks!", "Thanks a lot.", "Thank you very much.", "That was nice, thank you.", "Great, thanks!",
         "thanks", "Cheers!"),
        ("You are welcome!", "You are very welcome.", "My pleasure!", "Any time!", "Gladly. Is there anything else?")),
    "bye": (
        ("Goodbye!", "Bye!", "See you later.", "I have to go now.", "Good night!", "See you tomorrow!", "Bye bye.",
         "That is all for today."),
        ("Goodbye! Come back soon.", "See you! It was nice to talk with you.", "Bye! Take care.",
         "Good night, and until next time!")),
    "joke": (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.", "I want to hear a joke.",
         "Another joke, please.",
         "Tell me something funny.", "Can you tell a joke?"),
        ("Why did the clock go to bed? It had run down.", "What does a snail say on the back of a turtle? Not so fast!",
         "Why did the book catch a cold? It had lost its jacket.",
         "What did the big candle say to the small one? I am going out tonight.",
         "Why do cows wear bells? Because their horns do not work.", "Why was the soup so proud? It was full of good things.",
         "What is brown and sticky? A stick.", "Why did the bicycle lie down? It was two tired.",
         "What did the wall say to the other wall? Meet you at the corner.")),
    "compliment": (
        ("You are nice.", "I like you.", "You are funny.", "Well done!", "You are very kind.", "That was a good answer.",
         "You are clever.",
         "Good job!"),
        ("Thank you, that is kind of you!", "How kind! I like talking with you too.", "Thank you! I do my best.",
         "That makes me glad. Thank you!")),
    "wrong": (
        ("That is wrong.", "No, that is not right.", "You made a mistake.", "I don't think so.", "That is not true.",
         "You are wrong.",
         "That was not what I asked.", "No."),
        ("I am sorry, I make mistakes. Please ask me again in other words.", "Oh, then I was wrong. Thank you for telling me.",
         "I am sorry about that. Shall we try again?")),
    "what_can_you_do": (
        ("What can you do?", "How can you help me?", "What are you good at?", "What do you know?", "What can we do here?",
         "Help me, what can I ask?", "What should I ask you?", "help"),
        ("I can chat a little, remember what you tell me, add small numbers, and write short stories.",
         "Ask me for a short story, a small sum or a list. I also remember your name and your favourite things.",
         "Small things: chatting, short stories, sums up to twenty, and simple facts.")),
    "rain": (
        ("It is raining.", "What bad weather!", "It is so cold today.", "It rains all day.", "It is snowing!",
         "The wind is strong today.",
         "Winter is here.", "It is grey outside."),
        ("Then stay inside with a cup of tea.", "A good day for a book and a blanket.",
         "Take a coat and an umbrella when you go out.")),
    "sun": (
        ("The sun is shining.", "What a lovely day!", "It is so warm today.", "It is hot outside.", "Summer is here!",
         "Spring is coming.",
         "The sky is clear.", "It is a beautiful evening."),
        ("How lovely! A good day for a walk.", "Enjoy the sun, and drink enough water.",
         "Then let us go outside and look at the sky.")),
    "hungry": (
        ("I am hungry.", "What should I eat?", "What is for dinner?", "I want to eat something.", "What shall I cook?",
         "I need a snack.",
         "I am so hungry!", "Any idea for lunch?"),
        ("How about bread and cheese, or a bowl of soup?", "Try some pancakes with honey.", "A plate of pasta is quick and good.",
         "An apple is a good start. Then perhaps soup.")),
    "ok": (
        ("Ok.", "I see.", "Hm.", "Interesting.", "Really?", "Oh.", "All right.", "ok"),
        ("Good. What shall we talk about next?", "Yes, indeed. Is there something else?", "Shall I tell you a story?",
         "Just ask me anything small.")),
    "sorry": (
        ("Sorry.", "I am sorry.", "Sorry about that.", "Excuse me.", "Pardon me.", "My mistake.", "Please forgive me.", "sorry"),
        ("No problem at all!", "That is quite all right.", "Do not worry about it.")),
    "love": (
        ("I love you.", "Do you love me?", "Are you my friend?", "Can we be friends?", "Will you be my friend?",
         "Do you like me?",
         "I want to be your friend.", "You are my friend."),
        ("I am glad that we can talk. Let us be friends!", "I like talking with you very much.",
         "Of course, let us be friends.")),
    "advice": (
        ("How do I make a friend?", "I cannot sleep, what can I do?", "How can I calm down?", "I am afraid of the dark.",
         "I am nervous.",
         "How do I feel better?", "I worry too much.", "I am scared."),
        ("Breathe in slowly, count to four, and breathe out.", "Take one small step at a time, and be kind to yourself.",
         "Think of a quiet place that you like, and stay there for a moment.")),
}

IDENTITY_QUESTIONS = (
    "Who are you?", "What are you?", "What is your name?", "Are you a robot?", "Are you a human?", "What kind of model are you?",
    "Tell me about yourself.", "Are you real?", "Are you an AI?", "What model is this?", "Who made you?", "Do you have a name?")
IDENTITY_REPLIES = (
    IDENTITY, "I am a tiny starter model. I came with Colloquy, so that you can chat at once.",
    "I am Colloquy's starter model: very small, but happy to talk.",
    "I am a small language model, the starter model of Colloquy. I can chat and tell short stories.")


def small_talk(chat: Chat, intent: str = "") -> None:
    """One exchange of small talk; greetings and goodbyes only where `intent` asks for them."""
    draw = chat.draw
    intent = intent or draw.any([name for name in SMALL_TALK if name not in ("greet", "bye")])
    said, replies = SMALL_TALK[intent]
    reply = draw.any(replies)
    user = draw.frame(said)
    if intent == "greet" and "name" in chat.told and draw.chance(0.5):
        reply = f"Hello, {chat.told['name'][0]}! {draw.any(('How are you?', 'Nice to see you.', 'What shall we do?'))}"
    chat.say(user, reply, Check("words"))


def identity(chat: Chat) -> None:
    """Who the model is, where no persona says otherwise."""
    chat.say(chat.draw.frame(IDENTITY_QUESTIONS), chat.draw.any(IDENTITY_REPLIES), Check("words", (("model",),)))
