"""A small table of synonyms that stand in captions: for machines without WordNet."""

GROUPS = (
    "picture,photo,photograph,image", "man,gentleman,guy", "woman,lady", "boy,lad", "girl,lass", "child,kid,youngster",
    "people,persons,folk", "person,individual", "baby,infant", "dog,hound", "cat,feline", "rabbit,bunny", "horse,steed",
    "chicken,hen", "pig,hog", "donkey,ass", "mouse,rodent", "bird,fowl", "insect,bug", "car,automobile,auto",
    "truck,lorry", "bicycle,bike,cycle", "motorcycle,motorbike", "train,railway", "ship,vessel,boat",
    "airplane,aeroplane,plane,aircraft", "street,road", "house,home,building", "shop,store", "field,meadow,pasture",
    "forest,wood,woods", "hill,mound", "mountain,peak,mount", "sea,ocean", "lake,pond", "river,stream", "beach,shore",
    "stone,rock", "tree,plant", "flower,blossom,bloom", "leaf,foliage", "sun,sunshine", "night,nighttime",
    "evening,dusk", "morning,dawn", "big,large,huge", "small,little,tiny", "old,aged,ancient", "young,youthful",
    "beautiful,pretty,lovely", "happy,glad,cheerful", "sad,unhappy", "angry,mad", "fast,quick,rapid", "slow,sluggish",
    "new,fresh", "empty,vacant", "full,filled", "bright,shining", "dark,dim", "red,crimson,scarlet", "purple,violet",
    "grey,gray", "yellow,golden", "round,circular", "square,quadrate", "circle,disc,ring", "cross,plus", "top,upper",
    "bottom,lower", "left,left-hand", "right,right-hand", "near,close", "behind,after", "face,visage", "eye,eyeball",
    "hat,cap", "coat,jacket", "trousers,pants", "shoe,footwear", "bag,sack", "box,case", "cup,mug", "bottle,flask",
    "knife,blade", "chair,seat", "couch,sofa", "bed,cot", "lamp,light", "phone,telephone", "television,tv",
    "computer,laptop", "clock,timepiece", "book,volume", "letter,note", "food,meal,dish", "bread,loaf", "cake,pastry",
    "drink,beverage", "smile,grin", "smiling,grinning", "walking,strolling", "running,racing", "jumping,leaping",
    "sitting,seated", "standing,upright", "eating,dining", "holding,carrying", "looking,gazing", "talking,speaking",
    "playing,gaming", "sleeping,asleep", "laughing,giggling", "crying,weeping", "shouting,yelling", "sign,symbol",
    "heart,love", "star,asterisk", "arrow,pointer", "hand,palm", "wheel,tyre", "tool,instrument", "ball,sphere",
    "game,match", "party,celebration", "gift,present", "money,cash", "rain,shower", "snow,snowfall", "cloud,clouds",
    "fire,flame", "water,aqua", "road,lane", "garden,yard", "wall,fence", "door,gate", "window,pane",
    "factory,plant", "office,bureau", "hospital,clinic", "school,college", "church,chapel", "tower,spire",
)  # fmt: skip
"""Groups of words that may stand for each other."""
